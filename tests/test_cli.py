"""`moco-rt accelerate` and `predict`, one after the other. `demo` is in test_demo.py."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from moco_rt import Cascade, EarlyExitTextClassificationModel, cli
from moco_rt.architectures import Flags, load_tokenizer
from moco_rt.cascades.cascade_files import is_cascade
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus
from moco_rt.serving import label_files

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def texts():
    return [row.text for row in make_corpus(600, seed=1, hard_share=0.0, median_words=10)]


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "reviews.jsonl", texts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of a classifier that has learnt something."""
    reviews = make_corpus(1000, seed=0, hard_share=0.0, median_words=10)
    model, tokenizer = train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=0)
    directory = tmp_path_factory.mktemp("model")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def accelerated(saved, data, tmp_path_factory):
    """The directory that accelerate wrote."""
    out = tmp_path_factory.mktemp("fast")
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--agreement", "0.9", "--out", str(out)]
    assert cli.main([*arguments, "--max-length", "40", "--seed", "3"]) == 0
    return out


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_accelerate_prints_what_it_promises_and_writes_a_model_that_keeps_it(saved, data, tmp_path, capsys):
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--agreement", "0.9", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    fast = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert capsys.readouterr().out == fast.report() + "\n"
    assert fast.policy.certificate.alpha == pytest.approx(0.1)
    assert fast.policy.certificate.rows == 208  # 35% of 600, copies of a text on one side


def test_options_reach_the_policy(saved, data, texts, tmp_path):
    calibration = tmp_path / "calibration.txt"
    calibration.write_text("\n".join(texts[:80]), encoding="utf-8")
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--calibration", str(calibration)]
    arguments += ["--agreement", "0.8", "--confidence", "0.9", "--dtype", "float32", "--max-length", "20"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    policy = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "out").policy
    certificate = policy.certificate
    assert (certificate.rows, certificate.alpha, certificate.delta) == (80, pytest.approx(0.2), pytest.approx(0.1))
    assert (policy.made_for["max_length"], policy.made_for["dtype"]) == (20, "float32")


def test_thresholds_are_a_task(saved, data, tmp_path):
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--threshold", "POSITIVE=0.8"]
    assert cli.main([*arguments, "--agreement", "0.8", "--dtype", "float32", "--out", str(tmp_path)]) == 0
    policy = EarlyExitTextClassificationModel.from_pretrained(tmp_path).policy
    assert policy.task == Flags({"NEGATIVE": None, "POSITIVE": 0.8})
    assert policy.certificate.answer == "side of the thresholds"


def test_labels_of_the_rows_that_certify_add_accuracies(saved, data, texts, tmp_path, capsys):
    calibration = tmp_path / "calibration.jsonl"
    rows = [{"text": text, "label": "POSITIVE"} for text in texts[:80]]
    calibration.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--calibration", str(calibration)]
    assert cli.main([*arguments, "--agreement", "0.8", "--out", str(tmp_path / "out")]) == 0
    assert "accuracy" in capsys.readouterr().out
    model = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "out")
    full = EarlyExitTextClassificationModel(model.model).predict(texts[:80], tokenizer=load_tokenizer(model.model))
    assert model.policy.certificate.accuracy_full == pytest.approx(float((full.labels == 1).float().mean()))


def test_predict_labels_a_file_with_the_policy_and_goes_on_where_it_was_interrupted(
    accelerated, texts, tmp_path, capsys
):
    data = write(tmp_path / "new.jsonl", texts)
    out = tmp_path / "new.jsonl.labels.jsonl"
    assert cli.main(["predict", str(accelerated), str(data)]) == 0
    assert capsys.readouterr().out == f"{out}: 600 lines\n"
    fast = EarlyExitTextClassificationModel.from_pretrained(accelerated)
    found = fast.predict(texts, tokenizer=load_tokenizer(fast.model))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["label"] for line in lines] == [fast.config.id2label[label] for label in found.labels.tolist()]
    exits = [None if site < 0 else fast.sites[site] for site in found.exit_site.tolist()]
    assert [line["exit"] for line in lines] == exits
    assert any(exits)

    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    kept = whole[: len(whole) // 2].count(b"\n")
    assert cli.main(["predict", str(accelerated), str(data)]) == 0
    assert capsys.readouterr().out == f"{out}: 600 lines, {kept} of them from an earlier run\n"
    assert out.read_bytes() == whole


def test_predict_certifies_the_rows_of_a_file(accelerated, texts, tmp_path, capsys):
    data, out = write(tmp_path / "new.jsonl", texts), tmp_path / "labels.jsonl"
    arguments = ["predict", str(accelerated), str(data), "--out", str(out), "--certify", "0.9"]
    assert cli.main([*arguments, "--confidence", "0.9"]) == 0
    fast = EarlyExitTextClassificationModel.from_pretrained(accelerated)
    expected = fast.predict(texts, certify=0.9, confidence=0.9)
    assert capsys.readouterr().out == f"{out}: 600 lines\n{expected.certificate}\n"
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in expected]
    about = json.loads((tmp_path / "labels.jsonl.certificate.json").read_text(encoding="utf-8"))
    assert about["says"] == str(expected.certificate)
    assert about["certificate"]["confidence"] == 0.9

    whole, certificate = out.read_bytes(), (tmp_path / "labels.jsonl.certificate.json").read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert cli.main([*arguments, "--confidence", "0.9"]) == 0
    assert (out.read_bytes(), (tmp_path / "labels.jsonl.certificate.json").read_bytes()) == (whole, certificate)
    assert "of them from an earlier run" in capsys.readouterr().out

    write(data, [*texts, "a film"])
    assert_refused(capsys, [*arguments, "--confidence", "0.9"], "made with another number of rows: 600 (got 601)")
    assert_refused(capsys, arguments, "made with another confidence: 0.9 (got 0.95)")
    assert_refused(capsys, [*arguments, "--certify", "1"], "certify must be inside (0, 1) (got 1.0)")
    standard = ["predict", str(accelerated), "-", "--format", "txt", "--certify", "0.9"]
    assert_refused(capsys, standard, "data must be a file, which is read more than once, to be certified (got -)")


def test_predict_certifies_no_model_in_another_dtype_than_its_own(saved, data, tmp_path, capsys):
    out = tmp_path / "labels.jsonl"
    arguments = ["predict", str(saved), str(data), "--out", str(out), "--certify", "0.9", "--dtype", "bfloat16"]
    assert_refused(capsys, arguments, "certify must be None where the model as it was given is not kept")
    assert not out.exists()


def test_predict_runs_any_classifier_into_any_file(saved, texts, tmp_path, capsys):
    data = tmp_path / "new.txt"
    data.write_text("\n".join(texts[:20]) + "\n", encoding="utf-8")
    out = tmp_path / "labels"
    assert cli.main(["predict", saved, str(data), "--out", str(out), "--max-length", "16"]) == 0
    assert "20 lines" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {line["exit"] for line in lines} == {None}
    assert {line["label"] for line in lines} == {"NEGATIVE", "POSITIVE"}


@pytest.fixture
def standard_output(monkeypatch):
    """`standard_output(encoding, errors)`: puts one of this kind in place, and returns what reads its bytes."""

    def replace(encoding, errors="strict"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors)
        monkeypatch.setattr(sys, "stdout", stream)
        return lambda: (stream.flush(), stream.buffer.getvalue())[1]

    return replace


@pytest.mark.parametrize(
    ("encoding", "errors", "name", "said"),
    [
        ("ascii", "strict", "ünï", rb"\xfcn\xef"),
        ("ascii", "surrogateescape", "ünï", rb"\xfcn\xef"),
        ("latin-1", "strict", "ünï€", b"\xfcn\xef" + rb"\u20ac"),
        ("ascii", "replace", "ünï", b"?n?"),
        ("utf-8", "strict", "ünï", "ünï".encode()),
        ("utf-8", "strict", os.fsdecode(b"caf\xe9"), rb"caf\udce9"),
        ("utf-8", "surrogateescape", os.fsdecode(b"caf\xe9"), b"caf\xe9"),
    ],
)
def test_files_of_any_name_are_told_of(saved, texts, tmp_path, standard_output, encoding, errors, name, said):
    data = write(tmp_path / f"{name}.jsonl", texts[:3])
    output = standard_output(encoding, errors)
    assert cli.main(["predict", saved, str(data)]) == 0
    assert output() == os.fsencode(tmp_path) + b"/" + said + b".jsonl.labels.jsonl: 3 lines\n"


def test_labels_on_standard_output_are_utf_8_whatever_it_can_say(saved, texts, tmp_path, standard_output):
    shutil.copytree(saved, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "Überdruß", "1": "schön"}, "label2id": {"Überdruß": 0, "schön": 1}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    data = write(tmp_path / "ünï.jsonl", texts[:9])
    arguments = ["predict", str(tmp_path / "model"), str(data), "--out"]
    output = standard_output("ascii")
    assert cli.main([*arguments, str(tmp_path / "labels.jsonl")]) == 0
    told = output()
    assert cli.main([*arguments, "-"]) == 0
    labels = output().removeprefix(told)
    assert labels == (tmp_path / "labels.jsonl").read_bytes()
    assert {json.loads(line)["label"] for line in labels.splitlines()} <= {"Überdruß", "schön"}


def test_several_models_are_a_cascade(saved, data, texts, tmp_path, capsys):
    out = tmp_path / "cascade"
    arguments = ["accelerate", "--model", saved, saved, "--data", str(data), "--agreement", "0.9", "--out", str(out)]
    assert cli.main([*arguments, "--max-length", "40"]) == 0
    printed = capsys.readouterr().out
    cascade = Cascade.from_pretrained(out)
    assert printed == cascade.report() + "\n"
    assert "class with the most other answers: " in printed
    assert {tier.max_length for tier in cascade.tiers} == {40}

    new = write(tmp_path / "new.jsonl", texts[:50])
    assert cli.main(["predict", str(out), str(new)]) == 0
    capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "new.jsonl.labels.jsonl").read_text().splitlines()]
    found = cascade.predict(texts[:50])
    assert [line["tier"] for line in lines] == found.tier.tolist()
    assert [line["label"] for line in lines] == [cascade.config.id2label[label] for label in found.labels.tolist()]
    sites = [cascade.tiers[tier].model.sites for tier in found.tier.tolist()]
    expected = [None if site < 0 else of[site] for of, site in zip(sites, found.exit_site.tolist(), strict=True)]
    assert [line["exit"] for line in lines] == expected

    assert cli.main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(count.site in printed for count in cascade.certificate.exits)
    assert page.count("<img") == (3 if cascade.certificate.exits else 1)
    assert_refused(capsys, ["predict", str(out), str(new), "--max-length", "9"], "max_length must be left to a cascade")
    certified = ["predict", str(out), str(new), "--out", str(tmp_path / "certified"), "--certify", "0.9"]
    assert cli.main(certified) == 0
    assert "of 50 answers" in capsys.readouterr().out
    if cascade.certificate.exits:
        assert cli.main(["recertify", str(out), str(data)]) == 0
        assert capsys.readouterr().out.startswith("before:\n")


def test_a_page_about_what_is_not_there_is_refused(capsys, tmp_path):
    words = f"model must be a directory that accelerate wrote (no folder {tmp_path / 'nothing'})"
    assert_refused(capsys, ["report", str(tmp_path / "nothing")], words)


def test_a_single_model_takes_the_place_of_a_cascade(saved, data, tmp_path):
    arguments = ["--data", str(data), "--agreement", "0.9", "--out", str(tmp_path)]
    assert cli.main(["accelerate", "--model", saved, saved, *arguments]) == 0
    assert is_cascade(tmp_path)
    assert cli.main(["accelerate", "--model", saved, *arguments]) == 0
    assert not is_cascade(tmp_path)


def assert_refused(capsys, arguments, words):
    """Status 2, and one line on standard error that says why."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    progress = "Loading weights:"  # Hugging Face's
    (line,) = [line for line in captured.err.split("\n") if line and progress not in line]
    assert line.startswith("moco-rt: ")
    assert words in line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--agreement", "1.5"], "agreement must be inside (0, 1) (got 1.5)"),
        (["--confidence", "0"], "confidence must be inside (0, 1) (got 0.0)"),
        (["--max-length", "1"], "max_length must be more than the 2 special tokens (got 1)"),
        (["--threshold", "0.5"], "threshold must map names of classes to numbers (got 0.5)"),
        (["--threshold", "POSITIVE=x"], "threshold must be a number, or class=number,... (got 'POSITIVE=x')"),
        (
            ["--threshold", "X=0.5"],
            "threshold must map some of the classes NEGATIVE, POSITIVE to numbers (got {'X': 0.5})",
        ),
        (
            ["--tolerance", "1"],
            "model must have problem_type='regression', or one label, for Regression (got num_labels=2",
        ),
        (["--tolerance", "1", "--threshold", "POSITIVE=0.5"], "threshold and tolerance must not be given both"),
        (["--data", "nothing.jsonl"], "No such file or directory: 'nothing.jsonl'"),
        (["--calibration", "nothing.txt"], "No such file or directory: 'nothing.txt'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_accelerate_refuses_what_cannot_be_in_one_line(saved, data, tmp_path, capsys, option, words):
    arguments = ["accelerate", "--model", saved, "--data", str(data), "--out", str(tmp_path / "out"), *option]
    capsys.readouterr()
    assert_refused(capsys, arguments, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('{"text": "fine"}\nnot json\n', ":2 must be a JSON object (got 'not json"),
        (
            '{"text": "fine"}\n' * 20,
            "texts must leave at least 50 distinct rows to fit, to search and to certify on (got 0, 0 and 1)",
        ),
        ("", "texts must hold at least one text (got none)"),
    ],
    ids=["broken", "few", "none"],
)
def test_accelerate_refuses_bad_data_in_one_line(saved, tmp_path, capsys, lines, words):
    data = tmp_path / "rows.jsonl"
    data.write_text(lines, encoding="utf-8")
    capsys.readouterr()
    assert_refused(capsys, ["accelerate", "--model", saved, "--data", str(data), "--out", str(tmp_path / "o")], words)


def test_predict_refuses_bad_data_in_one_line_and_keeps_what_it_wrote(saved, texts, tmp_path, capsys):
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text('{"text": "fine"}\n{"label": 1}\n', encoding="utf-8")
    capsys.readouterr()
    assert_refused(capsys, ["predict", saved, str(data), "--out", str(out)], f"{data}:2 must have a text")
    assert out.read_text(encoding="utf-8").count("\n") == 1  # what is before it
    write(data, ["fine", *texts[:2]])
    assert cli.main(["predict", saved, str(data), "--out", str(out)]) == 0
    write(data, ["fine", texts[0]])
    capsys.readouterr()
    assert_refused(capsys, ["predict", saved, str(data), "--out", str(out)], "must not hold more lines than")
    assert out.read_text(encoding="utf-8").count("\n") == 3


def test_columns_and_formats_can_be_named(saved, texts, tmp_path, capsys):
    data, out = tmp_path / "rows.dat", tmp_path / "labels.csv"
    data.write_text("".join(f"{i}\t{text}\n" for i, text in [("id", "body"), *enumerate(texts[:9])]), encoding="utf-8")
    arguments = ["predict", saved, str(data), "--out", str(out)]
    assert_refused(capsys, arguments, f"{data} must end in one of .jsonl")
    assert_refused(capsys, [*arguments, "--format", "tsv"], f"{data} must have a column text (got id, body)")
    assert cli.main([*arguments, "--format", "tsv", "--text-column", "body"]) == 0
    assert capsys.readouterr().out == f"{out}: 9 lines\n"
    assert out.read_text(encoding="utf-8").splitlines()[0] == "label,prob,exit"


def test_texts_come_from_standard_input_and_labels_go_to_standard_output(saved, texts, tmp_path, capfdbinary):
    data = write(tmp_path / "rows.jsonl", texts[:9])
    assert cli.main(["predict", saved, str(data)]) == 0
    with data.open("rb") as lines:
        command = [sys.executable, "-m", "moco_rt", "predict", saved, "-", "--format", "jsonl"]
        done = subprocess.run(command, stdin=lines, capture_output=True, check=True)
    assert done.stdout == (tmp_path / "rows.jsonl.labels.jsonl").read_bytes()
    assert done.stderr.splitlines()[-1] == b"-: 9 lines"
    assert not capfdbinary.readouterr().out.startswith(b"{")


def test_overwrite_starts_anew(saved, texts, tmp_path, capsys):
    data, out = write(tmp_path / "rows.jsonl", texts[:9]), tmp_path / "out"
    assert cli.main(["predict", saved, str(data), "--out", str(out)]) == 0
    write(data, texts[9:12])
    arguments = ["predict", saved, str(data), "--out", str(out)]
    capsys.readouterr()
    assert_refused(capsys, arguments, "must not hold more lines than")
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 lines\n"


def test_predict_computes_in_the_dtype_that_is_asked_for(saved, texts, tmp_path, capsys):
    data, out = write(tmp_path / "rows.jsonl", texts[:9]), tmp_path / "out"
    assert cli.main(["predict", saved, str(data), "--out", str(out), "--dtype", "float32"]) == 0
    assert cli.main(["predict", saved, str(data), "--out", str(out)]) == 0  # it is the model's
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EarlyExitTextClassificationModel, "from_pretrained", refuse_dtype)
        assert_refused(capsys, ["predict", saved, str(data), "--dtype", "bfloat16"], "asked for torch.bfloat16")
        assert_refused(capsys, ["predict", saved, str(data), "--dtype", "int8"], "asked for int8")


def refuse_dtype(_, *, dtype):
    raise ValueError(f"asked for {dtype}")


def test_an_interruption_is_one_line_and_status_130(saved, data, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(label_files, "predict_file", interrupt)
    assert cli.main(["predict", saved, str(data)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "moco-rt: interrupted"


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("too large"),
        KeyError("weights"),
        IndexError("too far"),
        SafetensorError("cut off\n here"),
        OSError(5, "I/O error", "file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_any_library_is_one_line_and_status_2(saved, data, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(label_files, "predict_file", fail)
    assert_refused(capsys, ["predict", saved, str(data)], str(error).split("\n")[0])


@pytest.mark.parametrize("command", ["accelerate", "demo"])
def test_an_out_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, command):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deeper", "/proc/1/nothing"):
        arguments = [command, "--model", "nothing", "--data", "nothing.jsonl", "--out", str(out)]
        assert_refused(capsys, arguments, f"out must be a directory that can be written (got {out}: ")


def test_help_waits_for_nothing_heavy():
    script = "import sys; from moco_rt import cli; cli.main(['predict', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--text-column" in done.stdout
    loaded = set(done.stdout.replace("]", "").split(", "))
    assert not {"'transformers'", "'pyarrow'", "'scipy'", "'matplotlib'", "'sklearn'"} & loaded


def test_predict_refuses_a_missing_file_in_one_line(saved, tmp_path, capsys):
    capsys.readouterr()
    assert_refused(capsys, ["predict", saved, str(tmp_path / "nothing.txt")], "No such file or directory")


def test_predict_refuses_a_policy_of_another_model_in_one_line(saved, accelerated, data, tmp_path, capsys):
    policy = tmp_path / "mixed"
    EarlyExitTextClassificationModel.from_pretrained(accelerated).save_pretrained(policy)
    load_tokenizer(EarlyExitTextClassificationModel.from_pretrained(saved).model).save_pretrained(policy)
    about = json.loads((policy / "policy.json").read_text(encoding="utf-8"))
    about["made_for"]["weights"] = "another"
    (policy / "policy.json").write_text(json.dumps(about), encoding="utf-8")
    capsys.readouterr()
    assert_refused(capsys, ["predict", str(policy), str(data), "--out", str(tmp_path / "out")], "another weights")


@pytest.mark.parametrize("size", [0, 4, 1000])
def test_broken_weights_are_named(saved, data, tmp_path, capsys, size):
    broken = tmp_path / "broken"
    shutil.copytree(saved, broken)
    os.truncate(broken / "model.safetensors", size)
    words = f"{broken / 'model.safetensors'} must be a whole safetensors file (got: "
    assert_refused(capsys, ["predict", str(broken), str(data)], words)
    out = tmp_path / "out"
    assert_refused(capsys, ["accelerate", "--model", str(broken), "--data", str(data), "--out", str(out)], words)


@pytest.mark.parametrize("command", ["accelerate", "predict"])
def test_a_directory_without_a_model_is_refused_in_one_line(data, tmp_path, capsys, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = {
        "accelerate": ["accelerate", "--model", str(empty), "--data", str(data), "--out", str(tmp_path / "out")],
        "predict": ["predict", str(empty), str(data), "--out", str(tmp_path / "out")],
    }
    assert_refused(capsys, arguments[command], str(empty))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command"),
        (["accelerate", "--data", "rows.jsonl", "--out", "out"], "Missing option '--model'"),
        (["accelerate", "--model", "m", "--data", "d", "--out", "o", "--dtype", "float16"], "'float16' is not one of"),
        (["predict", "model"], "Missing argument 'data'"),
        (["predict", "model", "data", "--format", "xml"], "'xml' is not one of 'jsonl', 'json', 'csv'"),
        (["demo", "--model", "model"], "--model and --data go together"),
        (["fly"], "No such command 'fly'"),
    ],
    ids=["none", "no model", "dtype", "no data", "format", "half a task", "unknown"],
)
def test_wrong_arguments_are_one_line_and_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moco-rt: ")
    assert words in line
