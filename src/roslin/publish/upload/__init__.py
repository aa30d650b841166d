"""Publishing a folder on a hub: what may be sent, what the hub lacks, and sending it."""

from roslin.publish.upload.check import Upload, checked_upload
from roslin.publish.upload.hub import Hub, HubAway, HubRefused
from roslin.publish.upload.run import Plan, Published, Target, in_units, plan_upload, publish

__all__ = [
    "Hub",
    "HubAway",
    "HubRefused",
    "Plan",
    "Published",
    "Target",
    "Upload",
    "checked_upload",
    "in_units",
    "plan_upload",
    "publish",
]
