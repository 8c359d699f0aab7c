"""Ray Serve's view of its applications, for what its controller cannot be made to do on demand."""

from ray.serve.schema import ApplicationStatusOverview, ServeStatus


class FakeServe:
    """Serve's applications, which end after some looks at them, or never."""

    def __init__(self, *names: str, looks: float) -> None:
        self.names, self.looks, self.deleted = {*names}, looks, set[str]()

    def delete(self, name: str, _blocking: bool = True) -> None:
        assert not _blocking  # it would fail after a minute
        self.deleted.add(name)

    def status(self) -> ServeStatus:
        self.looks -= 1
        if self.looks < 0:
            self.names -= self.deleted
        told = dict.fromkeys(self.names, ApplicationStatusOverview("RUNNING", "", 0.0, {}))
        return ServeStatus(applications=told)
