import json

import pyarrow
import pytest
from pyarrow import parquet

from cerebras_gpt.tasks.rows import Findings, fields, read_rows

COLUMNS = {"text": ("text", "sentence"), "label": ("label",)}
PAIRS = [{"text": "good", "label": "yes"}, {"text": "bad, or so", "label": "no"}]


def read(path):
    findings = Findings()
    return [row for _, row in fields(read_rows(path, findings), COLUMNS, findings)], findings


def test_every_format_gives_the_same_rows(tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    (tmp_path / "a.json").write_text(json.dumps(PAIRS))
    (tmp_path / "a.csv").write_text('\ufeffSentence,label\ngood,yes\n"bad, or so",no\n', "utf-8")
    (tmp_path / "a.tsv").write_text("text\tlabel\ngood\tyes\nbad, or so\tno\n")
    for file in sorted(tmp_path.iterdir()):
        assert read(file)[0] == PAIRS, file.name


def test_every_bad_line_is_named_and_counted(tmp_path):
    file = tmp_path / "bad.jsonl"
    lines = [b'{"text": "a", "label": "x"}', b"{nonsense", b'{"text": "", "label": "x"}', b'{"text": "b"}', b"[1]"]
    lines += [b'{"text": "caf\xe9", "label": "x"}', b'{"text": ["l"], "label": "x"}', b'{"text": "c", "label": 3}']
    file.write_bytes(b"\n".join(lines))
    rows, findings = read(file)
    assert rows == [{"text": "a", "label": "x"}, {"text": "c", "label": "3"}]
    assert (findings.n_rows, findings.n_refused) == (8, 6)
    assert findings.to_mapping()["refused"] == {
        "no JSON": 1,
        "no JSON object": 1,
        "empty text": 1,
        "empty label": 1,
        "text is not UTF-8": 1,
        "text is no text": 1,
    }
    assert "refused: 1 x text is not UTF-8 (line 6)" in findings.lines()


def test_a_line_with_too_many_cells_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,b,c\nd,e\n")
    rows, findings = read(tmp_path / "a.csv")
    assert rows == [{"text": "d", "label": "e"}]
    assert findings.lines() == ["refused: 1 x not the 2 columns of the first line (line 2)"]


def test_a_missing_column_is_explained(tmp_path):
    (tmp_path / "a.csv").write_text("words,label\na,b\n")
    with pytest.raises(ValueError, match="no column for the text: there are words, label; call one of them text or"):
        read(tmp_path / "a.csv")


def test_what_is_no_data_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="its suffix is not one of"):
        read(tmp_path / "a.docx")
    with pytest.raises(FileNotFoundError, match="no file"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="neither a list"):
        read(tmp_path / "a.json")
