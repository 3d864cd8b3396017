"""Our own images on a daemon: loaded where they are missing, and verified at each use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from safe_compose.compose.probe import Probe
from safe_compose.engine import full_disk, helper_image
from safe_compose.engine.docker import Daemon
from safe_compose.engine.errors import changing, inspecting
from safe_compose.engine.helper_image import BuiltImage, NoOwnImage
from safe_compose.errors import OperationFailed


class OwnImages:
    """The images of safe-compose that one run uses on a daemon."""

    def __init__(self, docker: Daemon) -> None:
        """Use the images on this daemon."""
        self.docker = docker
        self._brought: list[str] | None = None
        """Ids of the images that must be removed again (`leaving_no_image`)."""

    def own_image(self) -> str:
        """Return the id of the helper's image on this engine, verified at each call.

        It is loaded where it is missing. Another image with its name is not used.

        Raises:
            NoOwnImage: This installation has no program for the engine's architecture, the engine
                refuses the image, or its disk is full.
        """
        if self.docker.disk_is_full:
            raise NoOwnImage(full_disk.FULL, next_step=self.docker.advise_on_full_disk())
        return self.bring(helper_image.build(self.docker.architecture))

    def reach_image(self) -> str:
        """Return the id of an image for a container that is created and never started.

        It is the helper's image, or one without any file. Both are verified alike.

        Raises:
            NoOwnImage: The engine takes neither.
        """
        try:
            return self.own_image()
        except NoOwnImage:
            return self.bring(helper_image.build_empty(self.docker.architecture.rpartition("/")[2]))

    @contextmanager
    def leaving_no_image(self) -> Iterator[None]:
        """Remove those of our images that the block loads, after it.

        An image that others use by then stays.
        """
        self._brought = []
        try:
            yield
        finally:
            brought, self._brought = self._brought, None
            for identity in brought:
                # without force docker refuses while a container uses it, and a leftover image does
                # no harm
                with suppress(OperationFailed), changing(f"remove image {identity}"):
                    self.docker.connection.api.remove_image(identity)

    def bring(self, wanted: BuiltImage) -> str:
        """Return the id under which the engine has exactly this image, loaded where it is missing.

        Raises:
            NoOwnImage: The engine does not take it.
        """
        if (found := self._find(wanted)) is not None:
            return found
        if self._brought is not None and self.docker.image(wanted.reference) is not None:
            raise NoOwnImage(f"another image bears the name {wanted.reference}, and would lose it")
        probe = Probe(
            (*self.docker.command, "load", "--quiet"), self.docker.environ, stdin=wanted.archive()
        )
        code, _, words = probe.answer()
        if (found := self._find(wanted)) is None:
            message = " ".join(words.split()) or (
                "it took it for another one" if code == 0 else f"docker load ended with {code}"
            )
            step = (
                "let the engine load an image of 3 MB (its disk: docker system df), then repeat the"
                " command"
            )
            raise NoOwnImage(
                f"the engine does not take the image {wanted.reference}: {message}",
                next_step=self.docker.advise_on_full_disk() if full_disk.is_full(message) else step,
            )
        if self._brought is not None:
            self._brought.append(found)
        return found

    def _find(self, wanted: BuiltImage) -> str | None:
        """Return the id of the image on the engine, or None.

        It is asked by id, never by name, and never taken from a cache.
        """
        with inspecting():
            for identity in wanted.ids:
                body = self.docker.connection.reader.get(f"/images/{identity}/json")
                if body is not None and wanted.is_described_by(body, identity):
                    return identity
        return None


def with_image(image: Callable[[], str], create: Callable[[str], str]) -> str:
    """Return the result of `create` for one of our images.

    It is tried twice where a prune removed the image after it was verified.
    """
    from docker.errors import ImageNotFound

    try:
        return create(image())
    except OperationFailed as fault:
        if not isinstance(fault.__cause__, ImageNotFound):
            raise
        return create(image())
