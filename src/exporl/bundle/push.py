"""Uploading a bundle to a model hub, where it is asked for."""

from pathlib import Path

from exporl.files.bundle import BASE_KIND, KIND, KNOWN, MANIFEST, check_bundle


def push_bundle(folder: Path | str, repository: str) -> str:
    """Uploads a bundle that is intact to huggingface.co; a repository that is new is private.

    Args:
        folder: the bundle.
        repository: "owner/name".

    Returns:
        Where it is.

    Raises:
        DamagedBundleError: a file is not what its manifest says.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    check_bundle(Path(folder), (KIND, BASE_KIND))
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "uploading needs the package huggingface_hub: pip install 'exporl[hub]'.",
            name="huggingface_hub",
        ) from error
    api = huggingface_hub.HfApi()
    api.create_repo(repository, private=True, exist_ok=True)
    done = api.upload_folder(
        repo_id=repository, folder_path=str(folder), allow_patterns=[*sorted(KNOWN), MANIFEST]
    )
    return str(done)
