"""AdamW of one tensor: exact fp32 weights in two halves, moments in 32, 16 or 8 bits, in plain torch and in Triton."""
