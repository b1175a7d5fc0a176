"""Sending a Hugging Face folder to the hub, through `huggingface_hub`.

The token is that of HF_TOKEN or of the stored login; it is in no message, whatever a server answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bionemo_core.errors import ConfigError, NetworkError
from bionemo_core.interop.hub import OFFLINE_VARIABLE, hide_token, hub_endpoint, import_hub_library, is_offline

Answer = TypeVar("Answer")

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_OF_NEW_REPOSITORY = {".gitattributes"}


class Destination:
    """A repository of the hub that a folder can be sent to: it does not exist yet, or is empty.

    Args:
        name: ORG/NAME.
        private: whether only its owners may see it.

    Raises:
        ConfigError: the name, the token or the library is missing or invalid, or the repository has files.
        NetworkError: the hub does not answer, or does not accept the token.
    """

    def __init__(self, name: str, *, private: bool) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"task.push_to: got {name!r}, expected ORG/NAME.")
        if is_offline():
            raise ConfigError(
                f"task.push_to: {OFFLINE_VARIABLE} forbids requests to the hub. Unset it, or do not push."
            )
        huggingface_hub = import_hub_library("task.push_to")
        self.name, self._private = name, private
        self._endpoint = hub_endpoint()
        token = huggingface_hub.get_token()
        if not token:
            raise ConfigError(
                f"task.push_to={name}: there is no token. Set HF_TOKEN to one with write access, or log in with "
                "`hf auth login`."
            )
        self._token = token
        self._api = huggingface_hub.HfApi(endpoint=self._endpoint, token=token)
        self._ask(self._api.whoami)
        self._check_empty()

    @property
    def address(self) -> str:
        """The page of the repository."""
        return f"{self._endpoint}/{self.name}"

    def send(self, folder: Path) -> None:
        """Create the repository, and send all files of `folder` as one commit.

        Raises:
            ConfigError: the repository got files meanwhile, or the hub does not accept the model card.
            NetworkError: the hub does not answer, or the token may not write there.
        """
        try:
            self._ask(lambda: self._api.create_repo(self.name, private=self._private, exist_ok=True))
            head = self._check_empty()
            self._ask(
                lambda: self._api.upload_folder(
                    repo_id=self.name,
                    folder_path=folder,
                    commit_message="Model written by bionemo-run",
                    parent_commit=head,  # the hub refuses it if someone else was faster
                )
            )
        except (ConfigError, NetworkError) as error:
            later = f"{folder} is complete; `hf upload {self.name} {folder}` sends it later."
            raise type(error)(f"{error} {later}") from error

    def _check_empty(self) -> str | None:
        """Check that nothing would be overwritten or shown; return the commit, None if there is no repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def look_up() -> Any:
            try:
                return self._api.model_info(self.name)
            except RepositoryNotFoundError:
                return None

        info = self._ask(look_up)
        if info is None:
            return None
        names = sorted({file.rfilename for file in info.siblings or ()} - _OF_NEW_REPOSITORY)
        if names:
            raise ConfigError(
                f"task.push_to={self.name}: the repository has other files already ({', '.join(names[:5])}), and "
                "nothing is overwritten. Choose another name."
            )
        if self._private and not info.private:
            raise ConfigError(
                f"task.push_to={self.name}: the repository exists and is public. Set task.push_private=false if "
                "everyone may see the model, or choose another name."
            )
        return info.sha

    def _ask(self, request: Callable[[], Answer]) -> Answer:
        from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of its HTTP library
            HfHubHTTPError,
            HTTPError,
        )

        try:
            return request()
        except HfHubHTTPError as error:
            raise NetworkError(self._refusal(error.response.status_code, str(error))) from error
        except RuntimeError as error:  # huggingface_hub's own, around the failure of one large file
            raise NetworkError(
                f"task.push_to={self.name}: {self._hide(f'{error} {error.__cause__ or str()}')}."
            ) from error
        except (HTTPError, OSError) as error:
            raise NetworkError(f"task.push_to={self.name}: {self._endpoint}: {self._hide(str(error))}.") from error
        except ValueError as error:  # an answer that is not JSON, or a model card that the hub does not accept
            raise ConfigError(f"task.push_to={self.name}: {self._endpoint}: {self._hide(str(error))}.") from error

    def _refusal(self, status: int, said: str) -> str:
        where = f"task.push_to={self.name}: {self._endpoint} answered with status {status}"
        if status == 401:
            return (
                f"{where}: it does not accept the token. Set HF_TOKEN to a valid one, or log in with `hf auth login`."
            )
        if status == 403:
            owner = self.name.partition("/")[0]
            return f"{where}: the token may not write there. It needs write access to repositories of {owner}."
        return f"{where}: {self._hide(said)}"

    def _hide(self, text: str) -> str:
        return hide_token(text, self._token)
