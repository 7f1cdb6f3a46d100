"""From the JSON of a create request to the engine's settings.

Every key that Docker's schema knows is either carried into the settings or must hold its default: what has no effect
here is refused by name (NotSupported), never ignored.  Keys that Docker does not know are ignored, as Docker does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dockerd_py.api.benign import Benign, empty, refuse_others, says_nothing
from dockerd_py.api.decode_host import NETWORK_MODES, decode_host
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.api.specs import check_port
from dockerd_py.engine.health_model import Healthcheck
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.errors import BadParameter, NotSupported


@dataclass(frozen=True)
class CreateRequest:
    config: ContainerConfig
    host: HostConfig


def decode_create(body: JsonObject) -> CreateRequest:
    """The settings in the body of POST /containers/create, of any API version.  BadParameter, NotSupported."""
    fields = Fields(body)
    refuse_others(fields, _CONFIG_BENIGN)
    _check_networking(fields.object("NetworkingConfig"))
    host = decode_host(fields.object("HostConfig"), flat=fields)
    config = _config(fields)
    if config.exposed_ports and host.network_mode.startswith("container:"):
        raise BadParameter("conflicting options: port exposing and the container type network mode")
    return CreateRequest(config, host)


def decode_commit(body: JsonObject) -> ContainerConfig:
    """The settings in the body of POST /commit.  BadParameter, NotSupported."""
    fields = Fields(body)
    ports = fields.texts("PortSpecs")  # the first year's: "22", or "2222:22"
    rest = {key: value for key, value in body.items() if key.casefold() != "portspecs"}
    refuse_others(Fields(rest), _CONFIG_BENIGN)
    config = _config(Fields(rest))
    exposed = (*config.exposed_ports, *(check_port(port.rpartition(":")[2]) for port in ports))
    return replace(config, exposed_ports=tuple(dict.fromkeys(exposed)))


def _config(fields: Fields) -> ContainerConfig:
    entrypoint = fields.optional_texts("Entrypoint")
    if entrypoint == ("",):
        entrypoint = ()  # how the docker command line spells "none at all"
    working_dir = fields.text("WorkingDir")
    if working_dir and not working_dir.startswith("/"):
        raise BadParameter(f"the working directory '{working_dir}' is invalid, it needs to be an absolute path")
    return ContainerConfig(
        image=fields.text("Image"),
        cmd=fields.texts("Cmd"),
        entrypoint=entrypoint,
        env=_environment(fields),
        working_dir=working_dir,
        user=fields.text("User"),
        hostname=fields.text("Hostname"),
        domainname=fields.text("Domainname"),
        tty=fields.flag("Tty"),
        open_stdin=fields.flag("OpenStdin"),
        stdin_once=fields.flag("StdinOnce"),
        attach_stdin=fields.flag("AttachStdin"),
        attach_stdout=fields.flag("AttachStdout"),
        attach_stderr=fields.flag("AttachStderr"),
        labels=fields.text_map("Labels"),
        exposed_ports=tuple(check_port(port) for port in fields.key_set("ExposedPorts")),
        volumes=fields.key_set("Volumes"),
        stop_signal=fields.text("StopSignal"),
        stop_timeout=fields.optional_number("StopTimeout"),
        network_disabled=fields.flag("NetworkDisabled"),
        on_build=fields.texts("OnBuild"),
        healthcheck=_healthcheck(fields),
        shell=fields.texts("Shell"),
    )


def _healthcheck(fields: Fields) -> Healthcheck | None:
    if fields.raw("Healthcheck") is None:
        return None
    given = fields.object("Healthcheck")
    return Healthcheck(
        test=given.texts("Test"),
        interval=given.number("Interval"),
        timeout=given.number("Timeout"),
        start_period=given.number("StartPeriod"),
        start_interval=given.number("StartInterval"),
        retries=given.number("Retries"),
    )


def _environment(fields: Fields) -> tuple[str, ...]:
    variables = fields.texts("Env")
    for variable in variables:
        if not variable or variable.startswith("="):
            raise BadParameter(f"invalid environment variable: {variable}")
    return variables


def _check_networking(fields: Fields) -> None:
    endpoints = fields.object("EndpointsConfig")
    for network in endpoints.names():
        endpoint = endpoints.object(network)
        if network not in NETWORK_MODES:
            raise NotSupported(f'the network "{network}" in {endpoints.name(network)} is not supported by this version')
        for key in endpoint.names():
            if not says_nothing(endpoint.raw(key)):
                raise NotSupported(f"{endpoint.name(key)} is not supported by this version")


# Settings of Docker's that have no effect here, each with what counts as "not asked for".
_CONFIG_BENIGN: dict[str, Benign] = {
    "ArgsEscaped": empty,  # Windows
    "MacAddress": empty,
    "PortSpecs": empty,
}
