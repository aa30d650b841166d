# Databricks notebook source
# MAGIC %md
# MAGIC # Tune a model of the Dolly family on Databricks
# MAGIC
# MAGIC Choose a base, GPUs and records in the widgets above, run all cells, and find the tuned model with its card under `output`.
# MAGIC
# MAGIC **Before.** Create a Git folder from Roslin's repository and open this notebook in it: the recipes are in the
# MAGIC repository's `recipes` folder, beside this one. Attach a GPU cluster with an ML runtime (Python 3.11 or newer). Several
# MAGIC machines are workers of equal GPUs; all paths must then be under `/Volumes` or `/dbfs`.
# MAGIC
# MAGIC | widget | what it is |
# MAGIC |---|---|
# MAGIC | `model` | the base: Pythia 2.8B, 6.9B, 12B (dolly-v2-3b, 7b, 12b), GPT-J 6B (dolly-v1-6b), or `base`, the small one that ships, to try this notebook |
# MAGIC | `gpu_family` | the cluster's GPUs; an A100 of 40 GB is `a100-40`; `cpu` goes with `base` |
# MAGIC | `num_gpus` | GPUs of one machine |
# MAGIC | `machines` | how many such machines |
# MAGIC | `records` | `databricks/databricks-dolly-15k`, or a file of your own: `/Volumes/…/mine.jsonl`, `dbfs:/…` |
# MAGIC | `local_output` | where the run works; left empty, the machine's fast disk |
# MAGIC | `output` | where the result is copied to: `/Volumes/…` or `/dbfs/…` |
# MAGIC | `run_name` | names the run's folder; the same name again goes on with a run that was stopped |
# MAGIC | `evaluation` | `limits` (needs no download), `benchmarks` (Dolly's seven, from the hub), or `none` |
# MAGIC | `settings` | other settings of the recipe, such as `epochs=1 learning_rate=1e-5` |

# COMMAND ----------

# MAGIC %pip install "..[hub,eval]"

# COMMAND ----------

dbutils.library.restartPython()

# COMMAND ----------

from roslin.integrations.databricks import Choices

Choices.offer(dbutils.widgets)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The plan
# MAGIC
# MAGIC The first of the model's recipes that fits the GPUs: all weights where they fit, else an adapter. What `roslin plan` prints is
# MAGIC arithmetic; nothing is loaded yet.

# COMMAND ----------

from pathlib import Path

from roslin.integrations.databricks import find_repository, plan_job, run

job = plan_job(Choices.read(dbutils.widgets), find_repository(Path.cwd()))
job.make_folders()
print(f"Recipe {job.recipe.name}, {job.processes} process(es). Works in {job.folder}; the result goes to {job.result}.")
run(job.plan_command, job.repository)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Tuning
# MAGIC
# MAGIC One process a GPU. Interrupted, this cell goes on where it was.

# COMMAND ----------

job.tune()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Asking
# MAGIC
# MAGIC The instructions that Dolly's notebook asked.

# COMMAND ----------

from roslin.tune import PROBES

for question, answer in zip(PROBES, job.ask(PROBES), strict=True):
    print(f"Instruction: {question}\n\n{answer}\n\n-----------\n")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Evaluation and copy
# MAGIC
# MAGIC What is found goes into the model's card, and the run, all but its checkpoints, to `output`.

# COMMAND ----------

if job.evaluation_command:
    run(job.evaluation_command, job.repository)
job.copy_result()
print(f"The model is in {job.result / 'model'}.")
