"""A folder with tiny traces under the names that the recipes read."""

import gzip

import numpy as np

LEVELS = [0.001, 0.01, *(step / 20 for step in range(1, 19)), 0.925, 0.95, 0.975, 0.99, 0.999]


def write_folder(folder, seed=3):
    """Writes every file; each has tell-tale lengths: 1000 + rank of the file, say."""
    rng = np.random.default_rng(seed)
    plain = "t_s,input_tokens,output_tokens"
    _write(folder, "aegaeon_synth_m32_r0.5.csv.gz", [plain, "0,1001,11", "1,1001,11"])
    _write(folder, "azure_llm_2023_conv.csv.gz", [plain, "0,1002,12", "1,1002,12"])
    code = [f"{t:.3f},1003,13" for t in np.sort(rng.random(300) * 2400)]
    _write(folder, "azure_llm_2023_code.csv.gz", [plain, *code])
    chat = [f"{t:.3f},1004,14,0 1 2" for t in np.sort(rng.random(300) * 2100)]
    _write(folder, "mooncake_conversation.csv.gz", [f"{plain},hash_ids", *chat])
    arena = [f"{t:.3f},{i % 27},1005,15" for i, t in enumerate(np.sort(rng.random(300) * 600))]
    _write(folder, "arena_27models_10min.csv.gz", ["t_s,model,input_tokens,output_tokens", *arena])
    _write_functions(folder, rng)
    _write_sessions(folder)
    _write_tenants(folder)


def _write_functions(folder, rng):
    header = "app,func,trigger," + ",".join(str(minute) for minute in range(480, 960))
    rows = []
    for function in range(12):
        trigger = "timer" if function == 0 else "http"
        calls = rng.poisson(1000.0 if function == 0 else 0.5, 480)
        rows.append(f"a{function},f{function},{trigger}," + ",".join(map(str, calls)))
    _write(folder, "azure_functions_2019_rpm_min480-959.csv.gz", [header, *rows])


def _write_sessions(folder):
    header = (
        "trace,agent,seq,t_s,model,input_tokens,output_tokens,prefix_hit_tokens,"
        "api_time_s,think_time_s"
    )
    rows = []
    for session in range(6):
        model = ("opus-4.5", "sonnet-4", "haiku-4.5")[session % 3]
        for seq in range(4):
            inputs, hits = 8000 + 400 * seq, (8000 + 400 * (seq - 1)) * (seq > 0)
            think = "" if seq == 1 else 300.0
            rows.append(f"{session},main,{seq},0,{model},{inputs},0,{hits},,{think}")
    _write(folder, "agentic_coding_sessions.csv.gz", [header, *rows])


def _write_tenants(folder):
    rates = ["model,client,ts,rate,cv,dist,p1,p2"]
    for client in range(0, 20, 2):
        for window in range(144):
            dist = "Weibull" if client % 4 else "Gamma"
            rates.append(f"m-small,{client},{86400 + 600 * window},{client + 1},1,{dist},0.9,1")
    _write(folder, "servegen_client_rates.csv.gz", rates)
    header = "model,client,ts,field,mean," + ",".join(f"q{level:g}" for level in LEVELS) + ",max"
    lengths = [header]
    for client in range(2, 20, 2):  # client 0 has none
        for field, tokens in (("input_tokens", 600), ("output_tokens", 60)):
            values = ",".join([f"{tokens}.0"] * 27)
            lengths.append(f"m-small,{client},{86400 + 21600},{field},{values}")
    _write(folder, "servegen_client_length_quantiles.csv.gz", lengths)


def _write(folder, name, lines):
    (folder / name).write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
