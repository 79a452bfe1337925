"""T4: every damage to a checkpoint is found, a sound one never refused, and the run goes on from the one before."""

import json
import random
import shutil

from benchmarks.faults.job import beside, copy_run, differences, reference_job, state, state_at, undisturbed
from cerebras_gpt import checkpoint

TRUNCATIONS = 20
SOUND_CHECKS = 1000
BLOCK = 4096


def truncated(content, draw, n):
    """The content cut at n points, the last byte and everything among them."""
    points = {0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(n - 2))}
    return [content[:point] for point in sorted(points)]


def flipped(content, draw, n):
    """The content with one bit changed, n times over; every bit once if that is fewer."""
    bits = range(8 * len(content))
    for bit in draw.sample(bits, n) if n < len(bits) else bits:
        yield content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def zeroed(content, draw):
    """The content with a block of zeros somewhere."""
    at = draw.randrange(max(1, len(content) - BLOCK))
    return content[:at] + bytes(min(BLOCK, len(content) - at)) + content[at + BLOCK :]


def is_found(path):
    """Whether verify refuses a checkpoint, in one line."""
    try:
        checkpoint.verify(path)
    except (ValueError, FileNotFoundError) as error:
        return "\n" not in str(error)
    return False


def missed(path, name, contents):
    """How many contents of a file pass for the one that was saved; the file is as before afterwards."""
    file, passed, n = path / name, 0, 0
    sound = file.read_bytes()
    for content in contents:
        if content == sound:
            continue
        file.write_bytes(content)
        n, passed = n + 1, passed + (not is_found(path))
    file.write_bytes(sound)
    return n, passed


def damaged_folders(path, older, work):
    """Copies of a checkpoint folder, each with another thing wrong with its files, by what is wrong."""
    names = sorted(file.name for file in path.iterdir())

    def changed(label, change):
        copy = work / label.replace(" ", "-")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        change(copy)
        return label, copy

    for name in names:
        yield changed(f"deleted {name}", lambda copy, name=name: (copy / name).unlink())
        yield changed(f"empty {name}", lambda copy, name=name: (copy / name).write_bytes(b""))
        yield changed(f"extra byte in {name}", lambda copy, name=name: (copy / name).open("ab").write(b"\n"))
        yield changed(f"folder for {name}", lambda copy, name=name: as_folder(copy / name))
        if (older / name).read_bytes() != (path / name).read_bytes():
            yield changed(f"older {name}", lambda copy, name=name: shutil.copy(older / name, copy / name))
    yield changed("swapped files", lambda copy: swap(copy / "model.safetensors", copy / "optimizer.safetensors"))
    yield changed("extra file", lambda copy: (copy / "extra.safetensors").write_bytes(b"x"))
    yield changed("manifest of another format", lambda copy: edit(copy, format=99))
    yield changed("manifest of another step", lambda copy: edit(copy, step=999))
    yield changed("manifest without files", lambda copy: edit(copy, files={}))
    yield changed("manifest that is a list", lambda copy: (copy / checkpoint.MANIFEST).write_text("[]"))
    yield changed("manifest that names a file outside", escape)


def as_folder(file):
    """A folder in the place of a file."""
    file.unlink()
    file.mkdir()


def swap(one, other):
    """Exchanges the contents of two files."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def edit(copy, **values):
    """Other values in the manifest, in the form that a save gives it."""
    manifest = json.loads((copy / checkpoint.MANIFEST).read_text())
    (copy / checkpoint.MANIFEST).write_text(json.dumps(manifest | values, indent=2))


def escape(copy):
    """A manifest whose first file lies outside the folder."""
    manifest = json.loads((copy / checkpoint.MANIFEST).read_text())
    name, fact = next(iter(manifest["files"].items()))
    files = {**manifest["files"], f"../{copy.name}/{name}": fact}
    edit(copy, files=files)


def single_files(report, path, draw, flips):
    """Truncations, flipped bits and a zeroed block in every class of file."""
    for name in sorted(file.name for file in path.iterdir()):
        content = (path / name).read_bytes()
        kinds = {
            "truncations": truncated(content, draw, TRUNCATIONS),
            "flipped bits": flipped(content, draw, flips),
            "zeroed blocks": [zeroed(content, draw) for _ in range(5)],
        }
        for kind, contents in kinds.items():
            n, passed = missed(path, name, contents)
            report.case(f"{kind} in {name}", [f"{passed} of {n} not found"] if passed else [], n=n)


def campaign(report, folder, flips, seed, falls_back=True):
    """All kinds of damage to copies of one checkpoint, then real runs that must fall back."""
    draw = random.Random(seed)
    small = reference_job(folder / "small", steps=20, d_model=16)
    run = undisturbed(small, folder / "small" / "reference")
    older, path = (run / checkpoint.FOLDER / f"step_{step:08d}" for step in (10, 20))
    copy = folder / "copy" / path.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    single_files(report, copy, draw, flips)
    for label, damaged in damaged_folders(path, older, folder / "folders"):
        report.case(label, [] if is_found(damaged) else ["not found"], n=1)
    alarms = sum(is_found(path) for _ in range(SOUND_CHECKS))
    report.case("sound checkpoint", [f"{alarms} false alarms"] if alarms else [], n=SOUND_CHECKS)
    damages = sum(case["n"] for case in report.cases) - SOUND_CHECKS
    report.figures |= {"damages": damages, "false alarms": f"{alarms} of {SOUND_CHECKS}"}
    if falls_back:
        fall_back(report, folder, draw)


def fall_back(report, folder, draw):
    """Runs whose newest checkpoint is damaged, each file in turn: they go on from the one before to the same end."""
    job = reference_job(folder, steps=40)
    reference = undisturbed(job, folder / "reference-40")
    names = sorted(file.name for file in checkpoint.checkpoints(reference)[0].iterdir())
    for name in names:
        run = copy_run(reference, folder / f"damaged-{name}", up_to=30)
        file = checkpoint.checkpoints(run)[0] / name
        file.write_bytes(next(flipped(file.read_bytes(), draw, 1)))
        code = job.finish(run)
        said = "falling back" in beside(run, "err").read_text()
        problems = [] if said else ["nothing was said"]
        report.case(
            f"resume beside a damaged {name}",
            problems + ([f"exit code {code}"] if code else differences(run, reference)),
            n=0,
        )
    two_damaged(report, job, reference, folder)


def two_damaged(report, job, reference, folder):
    """Both kept checkpoints damaged: the run begins anew and still ends the same."""
    run = copy_run(reference, folder / "both-damaged", up_to=30)
    for path in checkpoint.checkpoints(run):
        (path / "model.safetensors").write_bytes(b"gone")
    code = job.finish(run)
    problems = [f"exit code {code}"] if code else differences(run, reference)
    if not problems and state(checkpoint.newest(run)) != state_at(reference, job.plan.steps):
        problems = ["weights"]
    report.case("both checkpoints damaged", problems, n=0)
