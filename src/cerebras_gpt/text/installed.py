"""Files that installed packages bring, found without importing these packages."""

from importlib import metadata
from pathlib import Path


def installed_files(package: str, version: str, extra: str) -> list[Path]:
    """Every file of an installed distribution; a missing one or another version names the extra that brings it."""
    remedy = f'install it with: pip install "cerebras-gpt[{extra}]"'
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the package {package} {version} is not installed; {remedy}") from None
    if distribution.version != version:
        raise ValueError(f"{package} {distribution.version} is installed, {version} is needed; {remedy}")
    return [Path(str(distribution.locate_file(file))) for file in distribution.files or []]


def installed_file(package: str, version: str, extra: str, tail: str) -> Path:
    """The one file of an installed distribution whose path ends with `tail`."""
    found = [path for path in installed_files(package, version, extra) if path.as_posix().endswith(tail)]
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f'{package} {version} lacks {tail}; repair it with: pip install --force-reinstall "cerebras-gpt[{extra}]"'
        )
    return found[0]
