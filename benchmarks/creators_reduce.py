"""User rows of creators to summaries: 100 million in Parquet, 5 million in CSV, in bounded memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.row import NotMeasured, Row, show

PARQUET_ROWS = 100_000_000
CSV_ROWS = 5_000_000
#: Users per creator on average, as in the simulator's defaults.
_USERS = 820
_CHUNK = 2_000_000
#: Creators whose rows are kept beside, to be reduced by pandas too.
_CHECKED = 200
_BYTES_PER_ROW = {"parquet": 14, "csv": 45}

_REDUCE = """
import json, sys, time
from hbm_core.scenarios.creators.reduce import reduce
began = time.perf_counter()
found = reduce(sys.argv[1])
seconds = time.perf_counter() - began
found.table.head(int(sys.argv[3])).to_parquet(sys.argv[2])
try:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "peak": peak, "rows": found.rows, "creators": len(found.table)}))
"""


def chunks(rows: int, seed: int = 1) -> Iterator[tuple[pa.Table, pd.DataFrame]]:
    """User rows in no order, with those of the first creators beside."""
    rng = np.random.default_rng(seed)
    creators = max(_CHECKED, rows // _USERS)
    names = pa.array([f"c{place:07d}" for place in range(creators)])
    # Creators in the order of their genres, so that the first ones are the first of the summaries.
    genre = (np.arange(creators) * 5 // creators).astype(np.int32)
    genres = pa.array(["comedy", "education", "gaming", "music", "sports"])
    arms = pa.array(["control", "treatment"])
    effect = 0.5 + 0.4 * rng.standard_normal(creators)
    weight = np.sort(rng.pareto(1.5, creators) + 0.05)[rng.permutation(creators)]
    share = np.cumsum(weight) / weight.sum()
    for start in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - start)
        who = np.minimum(np.searchsorted(share, rng.random(count)), creators - 1).astype(np.int32)
        if start == 0:
            # Every checked creator has both arms.
            who[: 4 * _CHECKED] = np.repeat(np.arange(_CHECKED), 4)
        arm = (rng.random(count) < 0.5).astype(np.int32)
        arm[: min(4 * _CHECKED, count)] = np.tile([0, 1], 2 * _CHECKED)[:count]
        outcome = 5 + arm * effect[who] + 2 * rng.standard_normal(count)
        table = pa.table(
            {
                "creator": pa.DictionaryArray.from_arrays(who, names),
                "genre": pa.DictionaryArray.from_arrays(genre[who], genres),
                "group": pa.DictionaryArray.from_arrays(arm, arms),
                "outcome": outcome,
            }
        )
        here = who < _CHECKED
        kept = pd.DataFrame({"creator": who[here], "arm": arm[here], "outcome": outcome[here]})
        yield table, kept


def write(path: Path, rows: int) -> pd.DataFrame:
    """Write a file of `rows` user rows; returns the rows of the checked creators."""
    kept, writer = [], None
    for table, part in chunks(rows):
        kept.append(part)
        if path.suffix == ".parquet":
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        else:
            text = [pa.field(name, pa.string()) for name in table.column_names[:3]]
            table = table.cast(pa.schema([*text, table.schema.field("outcome")]))
            writer = writer or pyarrow.csv.CSVWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return pd.concat(kept, ignore_index=True)


def largest_gap(table: pd.DataFrame, kept: pd.DataFrame) -> float:
    """Largest difference of effect or standard error from pandas, in standard errors."""
    arms = kept.groupby(["creator", "arm"])["outcome"].agg(["size", "mean", "var"]).unstack()
    effect = (arms["mean"][1] - arms["mean"][0]).to_numpy()
    se = np.sqrt(arms["var"][1] / arms["size"][1] + arms["var"][0] / arms["size"][0]).to_numpy()
    assert [int(name[1:]) for name in table["creator"]] == arms.index.tolist()
    gaps = np.abs(np.stack([table["effect"] - effect, table["se"] - se])) / se
    return float(gaps.max())


def measured(folder: Path, kind: str, rows: int) -> list[Row]:
    """Figures of one file, which is removed afterwards."""
    path, out = folder / f"rows.{kind}", folder / "head.parquet"
    kept = write(path, rows)
    size = path.stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", _REDUCE, str(path), str(out), str(_CHECKED)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    path.unlink()
    found = json.loads(done.stdout)
    assert found["rows"] == rows
    name = f"{rows / 1e6:g} million user rows in {'Parquet' if kind == 'parquet' else 'CSV'}"
    note = f"{size / 1e9:.1f} GB on disk, {found['creators']:,} creators, rows in no order, one thread"
    return [
        Row(f"{name}: to summaries", found["seconds"], "s", note=note),
        Row(f"{name}: peak memory of the process", found["peak"] / 1e9, "GB", 2.0),
        Row(
            f"{name}: largest difference from pandas",
            largest_gap(pd.read_parquet(out), kept),
            "se",
            1e-10,
            note=f"{_CHECKED} creators, effect and se",
        ),
    ]


def rows(parquet: int = PARQUET_ROWS, csv: int = CSV_ROWS) -> list[Row]:
    """Both formats, one file on disk at a time."""
    found = []
    with tempfile.TemporaryDirectory(prefix="hbm-bench-") as name:
        for kind, count in (("parquet", parquet), ("csv", csv)):
            needed = 2 * count * _BYTES_PER_ROW[kind]
            if shutil.disk_usage(name).free < needed:
                raise NotMeasured(f"{needed / 1e9:.0f} GB of disk for temporary files")
            found += measured(Path(name), kind, count)
    return found


if __name__ == "__main__":
    show(rows(*(int(float(text)) for text in sys.argv[1:])))
