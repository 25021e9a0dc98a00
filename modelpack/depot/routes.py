"""Which method and path ask for what: the name of a method, after that of the part of the depot it is in."""

from __future__ import annotations

from werkzeug.routing import BaseConverter, Map, Rule

_UPLOAD = "/v2/<name:repository>/blobs/uploads/"


class RepositoryName(BaseConverter):
    """The name of a repository in a path: one, two or three parts."""

    regex = "[^/]+(?:/[^/]+){0,2}"
    part_isolating = False


def _rule(method: str, path: str, endpoint: str) -> Rule:
    return Rule(path, endpoint=endpoint, methods=[method], strict_slashes=False)


ROUTES = Map(
    [
        _rule("GET", "/", "root"),
        _rule("GET", "/api/version", "version"),
        _rule("GET", "/api/tags", "tags"),
        _rule("GET", "/api/ps", "ps"),
        _rule("POST", "/api/show", "show"),
        _rule("HEAD", "/api/blobs/<digest>", "head_blob"),
        _rule("POST", "/api/blobs/<digest>", "put_blob"),
        _rule("POST", "/api/create", "create"),
        _rule("POST", "/api/copy", "copy"),
        _rule("DELETE", "/api/delete", "delete"),
        _rule("POST", "/api/pull", "pull"),
        _rule("POST", "/api/push", "push"),
        *(_rule("POST", f"/api/{verb}", "engine") for verb in ("generate", "chat", "embed", "embeddings")),
        _rule("GET", "/v2/", "pulls.ping"),
        _rule("GET", "/v2/<name:repository>/manifests/<reference>", "pulls.manifest"),
        _rule("GET", "/v2/<name:repository>/blobs/<digest>", "pulls.blob"),
        _rule("GET", "/v2/<name:repository>/tags/list", "pulls.tags"),
        _rule("PUT", "/v2/<name:repository>/manifests/<reference>", "pushes.manifest"),
        _rule("POST", _UPLOAD, "pushes.begin"),
        _rule("GET", f"{_UPLOAD}<upload>", "pushes.status"),
        _rule("PATCH", f"{_UPLOAD}<upload>", "pushes.append"),
        _rule("PUT", f"{_UPLOAD}<upload>", "pushes.finish"),
        _rule("DELETE", f"{_UPLOAD}<upload>", "pushes.drop"),
    ],
    converters={"name": RepositoryName},
    merge_slashes=False,
)
