"""A small profile file, line by line."""

HEAD = """\
# format: 1
# device: sample
# model: tiny
# sms_total: 4
# memory_bytes: 1000
# weight_bytes: 100
# kv_bytes_per_token: 2
# context_tokens: 64
# load_ms: 5
# wake_ms: 1.5
# parked_w: 3
# made_by: hand
"""
ROWS = [
    "prefill,2,0,8,0,2.5,10,1000000000.0,2000000.0,0.01,3,measured",
    "prefill,2,0,32,0,8.5,11,1000000000.0,2000000.0,0.01,3,measured",
    "prefill,4,0,8,0,1.5,20,1000000000.0,2000000.0,0.01,3,measured",
    "prefill,4,0,32,0,4.5,21,1000000000.0,2000000.0,0.01,3,modelled",
    "decode,2,0,1,16,1.25,5,10000000.0,2000000.0,0.02,9,measured",
    "decode,4,0,1,16,1.0,6,10000000.0,2000000.0,0.02,9,corrected",
    "idle,0,0,0,0,0,7.5,0,0,0,0,measured",
]
