"""Where the setting of the state store comes from: it may hold a password, which a flag would show to `ps`."""

from collections.abc import Mapping

from core.errors import ConfigError
from deploy.config import OWN_REDIS, ServeConfig
from deploy.secret_files import read_secret_lines
from router.state.address import MEMORY, parse_state

STATE_VARIABLE = "BATON_STATE"


def read_state(config: ServeConfig, environment: Mapping[str, str]) -> str:
    """`--state`; without it the first line of `--state-file`; without that the variable, or `memory`.

    Raises:
        ConfigError: the file cannot be read, or what is there is no store of state, of which nothing is shown; or
            there are several routers and no store that they could share.
    """
    setting = _read(config, environment)
    if setting == MEMORY and config.routers > 1:
        raise ConfigError(
            f"--routers is {config.routers} and --state is {MEMORY}; several routers share what they know in Redis: "
            f"pass --state {OWN_REDIS} to start a server for this cluster, or --state redis://HOST:PORT"
        )
    return setting


def _read(config: ServeConfig, environment: Mapping[str, str]) -> str:
    if config.state_file is not None:
        source = f"the first line of --state-file {config.state_file}"
        setting = read_secret_lines(config.state_file, "--state-file")[0]
    elif config.state is None and (setting := environment.get(STATE_VARIABLE, "").strip()):
        source = STATE_VARIABLE
    else:
        return config.state or MEMORY
    if setting == OWN_REDIS:
        return setting
    try:
        parse_state(setting)
    except ConfigError as error:
        raise ConfigError(f"{source} is what --state would be, but {error.message}") from None
    return setting
