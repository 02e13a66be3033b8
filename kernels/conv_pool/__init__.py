"""Fused training blocks of the original's network: convolution, max-pool and ReLU."""

# The slots of a job, which is what the compiled functions are given: addresses, and sizes in elements.
FIELDS = (
    "counter clips x weight bias out code grad grad_x grad_weight grad_bias height width channels out_height out_width "
    "place_height place_width x_row x_clip groups group_clips list_at list_grad list_rows"
).split()
