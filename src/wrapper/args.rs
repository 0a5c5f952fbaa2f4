//! The wrapper's command line: what may be typed, and what it means.

mod address;
mod check;
mod draft;
mod drain;
mod endpoint;
mod facts;
mod interfaces;
mod list;
mod port;
mod presumed;
mod readiness;
mod rehearsal;
mod settings;
mod template;
mod tombstone;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use self::check::CheckArguments;
pub(super) use self::draft::Late;
use self::drain::DrainArguments;
use self::endpoint::EndpointArguments;
use self::readiness::ReadinessArguments;
use self::rehearsal::RehearsalArguments;
pub(super) use self::rehearsal::Rendering;
pub use self::settings::{Destination, Settings};
use self::tombstone::TombstoneArguments;
use super::PROGRAM;
use super::ending::{Ending, OWN_FAILURE};
use super::notify::ReadyWhen;
use super::signal_number::SignalNumber;
use super::supervision::Deregister;
use crate::command_line::{self, AccessArguments, Stop};
use crate::logging::{self, Format, Level};
use crate::message::{Hint, complain, report};
use crate::model::HeartbeatTimeout;

/// Run COMMAND, and keep it in the service registry for exactly as long as it lives
///
/// Runs COMMAND with everything it would have had without the wrapper: standard streams, arguments,
/// environment, signals. While it lives, it is listed in the service registry; when it has ended, the wrapper
/// ends the same way and the entry expires. Trouble with the registry never touches the command, unless
/// --abort-on-failure is given.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about,
    override_usage = "service-registry-wrapper [OPTIONS] COMMAND [ARGS]...",
    after_help = "--help tells more: examples, exit statuses, environment.",
    after_long_help = AFTER_HELP
)]
struct Arguments {
    /// The service's name in the registry [default: <hostname>-<command>]
    ///
    /// 3 to 65 letters, digits, `_`, `-` and `.`. Two live services cannot have the same. Can have placeholders, as
    /// tags and metadata can: see below.
    #[arg(long, help_heading = "Service", env = "SERVICE_REGISTRY_ID", value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    endpoint: EndpointArguments,

    /// What the service can be found by: TAG,TAG,...
    ///
    /// At most 10 tags of at most 55 characters. A comma in a tag is written `\,`. Can be given several times.
    #[arg(long, help_heading = "Service", short, env = "SERVICE_REGISTRY_TAGS", value_name = "TAGS")]
    tags: Vec<String>,

    /// What else is to be known of it: KEY=VALUE,KEY=VALUE,...
    ///
    /// At most 20 pairs; keys and values of at most 255 characters. The first `=` ends the key, a comma in a
    /// value is written `\,`. Can be given several times; the last value of a key counts.
    #[arg(long, help_heading = "Service", short, env = "SERVICE_REGISTRY_METADATA", value_name = "PAIRS")]
    metadata: Vec<String>,

    /// As --metadata, for command lines of the Node.js tool
    #[arg(long, env = "SERVICE_REGISTRY_SESSION_METADATA", value_name = "PAIRS", hide = true)]
    session_metadata: Vec<String>,

    /// How long the registry waits for a heartbeat before the service counts as dead
    ///
    /// 3 to 120 seconds: `20`, `20s` or `1m 30s`. Heartbeats go out about three times as often.
    #[arg(
        long, help_heading = "Service",
        short,
        env = "SERVICE_REGISTRY_INTERVAL",
        value_name = "TIME",
        default_value = "30s",
        value_parser = HeartbeatTimeout::parse
    )]
    interval: HeartbeatTimeout,

    #[command(flatten)]
    readiness: ReadinessArguments,

    #[command(flatten)]
    check: CheckArguments,

    #[command(flatten)]
    access: AccessArguments,

    /// With several registries, in how many of them it has to be
    ///
    /// Each is told by itself, and tried for as long as the command lives. This is what --abort-on-failure and
    /// --notify=registered go by: with `all`, a failure in one registry stops the command, and it is ready when every
    /// one has registered it; with `any`, only a failure in all of them stops it, and the first to register it makes
    /// it ready.
    #[arg(
        long,
        help_heading = "Registry",
        env = "SERVICE_REGISTRY_REQUIRE",
        value_name = "WHICH",
        default_value = "all"
    )]
    require: Required,

    /// Stop the command and exit with 100 when it cannot be registered
    ///
    /// Without it, the wrapper keeps trying for as long as the command lives. Once the command has been
    /// registered, no failure stops it either way.
    #[arg(long, help_heading = "Registry", env = "SERVICE_REGISTRY_ABORT_ON_FAILURE", value_parser = clap::builder::BoolishValueParser::new())]
    abort_on_failure: bool,

    /// How many failed attempts to register are a failure for --abort-on-failure
    ///
    /// A failure that will not pass by itself (access denied, a broken file) counts at once.
    #[arg(
        long,
        help_heading = "Registry",
        env = "SERVICE_REGISTRY_RETRIES",
        value_name = "COUNT",
        default_value = "3"
    )]
    retries: u32,

    /// When to take the service out of the registry, rather than let it expire
    #[arg(
        long,
        help_heading = "Registry",
        env = "SERVICE_REGISTRY_DEREGISTER",
        value_name = "WHEN",
        default_value = "on-stop"
    )]
    deregister: Deregister,

    #[command(flatten)]
    tombstone: TombstoneArguments,

    /// What to do when another live service has the id
    #[arg(
        long,
        help_heading = "Registry",
        env = "SERVICE_REGISTRY_ON_CONFLICT",
        value_name = "WHAT",
        default_value = "wait"
    )]
    on_conflict: Conflict,

    /// What the command gets instead of SIGTERM when it is asked to stop
    ///
    /// A name or a number: nginx stops gracefully on QUIT, Apache on WINCH. Other signals are passed on as they are.
    #[arg(
        long,
        help_heading = "Signals and processes",
        env = "SERVICE_REGISTRY_STOP_SIGNAL",
        value_name = "SIGNAL",
        default_value = "TERM"
    )]
    stop_signal: SignalNumber,

    /// How long the command has to end when it is asked to stop, before it is killed [default: for ever]
    ///
    /// A second request shortens what is left to a second.
    #[arg(long, help_heading = "Signals and processes", env = "SERVICE_REGISTRY_STOP_TIMEOUT", value_name = "TIME", value_parser = command_line::span)]
    stop_timeout: Option<Duration>,

    #[command(flatten)]
    drain: DrainArguments,

    /// Give the command a process group of its own, and send signals to all of it
    ///
    /// For shell scripts, which do not pass signals on. On a terminal, the group is put into the foreground.
    #[arg(long, help_heading = "Signals and processes", env = "SERVICE_REGISTRY_SIGNAL_GROUP", value_parser = clap::builder::BoolishValueParser::new())]
    signal_group: bool,

    /// What becomes of the command when the wrapper is killed
    ///
    /// Either way the service expires. `stop` has the kernel send the stop signal to the command (but not to what
    /// it has started), unless the command changes its user or is executed with a set-user-id bit.
    #[arg(
        long,
        help_heading = "Signals and processes",
        env = "SERVICE_REGISTRY_ON_WRAPPER_DEATH",
        value_name = "WHAT",
        default_value = "keep"
    )]
    on_wrapper_death: OnDeath,

    /// When systemd is told that the service is ready (`Type=notify`)
    ///
    /// What the command itself tells systemd is passed on in any case, as the main process's, so that the default
    /// NotifyAccess=main is enough. With `started` and `registered` it need not tell anything.
    #[arg(
        long,
        help_heading = "Signals and processes",
        env = "SERVICE_REGISTRY_NOTIFY",
        value_name = "WHEN",
        default_value = "child"
    )]
    notify: ReadyWhen,

    /// What becomes of processes that the command leaves behind when it, or one below it, ends
    ///
    /// As pid 1 there is no choice.
    #[arg(
        long,
        help_heading = "Signals and processes",
        env = "SERVICE_REGISTRY_ORPHANS",
        value_name = "WHAT",
        default_value = "adopt"
    )]
    orphans: Orphans,

    /// Follow the daemon that this file names when the command ends with 0
    ///
    /// For commands that put what they run into the background. The daemon is then what is registered, signalled, and
    /// waited for.
    #[arg(
        long,
        help_heading = "Signals and processes",
        env = "SERVICE_REGISTRY_PID_FILE",
        value_name = "FILE"
    )]
    pid_file: Option<PathBuf>,

    #[command(flatten)]
    rehearsal: RehearsalArguments,

    /// How much to tell on standard error
    #[arg(
        long,
        help_heading = "Log",
        env = "SERVICE_REGISTRY_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "warn"
    )]
    log_level: Level,

    /// In which form to tell it
    #[arg(
        long,
        help_heading = "Log",
        env = "SERVICE_REGISTRY_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: Format,

    /// The command to run, and its arguments
    ///
    /// Options end here: what follows is the command's, even if it looks like an option.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Required {
    /// In every one.
    All,
    /// In one.
    Any,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Conflict {
    /// Wait until it is gone: most often it is this service's previous life, about to expire.
    Wait,
    /// Take its place.
    Replace,
    /// Treat it as a failure.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnDeath {
    /// It goes on, unregistered.
    Keep,
    /// It is asked to stop.
    Stop,
}

/// What becomes of processes below us whose parent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Orphans {
    /// They are the wrapper's: it reaps them, and knows of them (it is their subreaper).
    Adopt,
    /// They are pid 1's, or another subreaper's.
    Leave,
}

const AFTER_HELP: &str = "\
Examples:
  service-registry-wrapper --id=web1-api --tags=api,www --metadata=port=8000 \\
      python3 -m http.server 8000
  service-registry-wrapper --name=api --address=10.0.0.0/8 --port=8000 python3 -m http.server 8000
  service-registry-wrapper --interval=10s --stop-signal=QUIT nginx -g 'daemon off;'
  service-registry-wrapper -r https://old.example/v1.0 -r consul:// bin/api  # in both: a migration
  raxsr services list

Placeholders in --id, --tags and --metadata:
  {hostname}         this machine's name
  {ip}               the IP address of --address, or this machine's towards the registry, or the first that others
                     can reach
  {ip:INTERFACE}     this interface's first address
  {port}             what --port says; one that was found may change, and cannot be in the id
  {pid}              the command's process id
  {env:NAME}         this environment variable; it has to be there
  {started}          the time of the start: 2013-07-01T12:30:00Z
  {version:COMMAND}  the first line that COMMAND prints: it is run before the command, and has 5 s
  A `{` in front of a letter begins one. Write it twice where it does not: `{{x}}` is `{x}`. All other braces are
  themselves, as in JSON.

Stopping:
  SIGTERM, SIGINT and SIGQUIT ask for the end: the service leaves the registry first, then the command gets the
  signal (at most 1 s later, and at once when the registry is known not to answer; --drain has it wait on). Every
  other signal is passed on as it comes. A command that ends by itself is left to expire, so that whoever watches
  sees a timeout. A command that is still alive one --interval after a SIGINT is registered again.

Exit status:
  the command's own; or the same signal, if one killed it (128+N as pid 1)
  127, 126   the command does not exist, cannot be executed
  125        the wrapper itself failed: bad usage, bad settings
  100        the wrapper has stopped it: registration failed, or it was not ready in time, under
             --abort-on-failure; or it was unhealthy, under --on-unhealthy=stop

Environment:
  Each option can be given as SERVICE_REGISTRY_<OPTION>, in capitals and with `_` for `-` (--registry as
  SERVICE_REGISTRY_URL, several with blanks between them). The command line comes first; an empty variable counts as none. Then come RAXSR_USERNAME,
  RAXSR_API_KEY, RAXSR_API_URL, RAXSR_AUTH_URL, and the file that RAXSR_RAXRC names, or ~/.raxrc. The command's
  environment is the wrapper's, without SERVICE_REGISTRY_API_KEY, SERVICE_REGISTRY_API_KEY_FILE and RAXSR_API_KEY;
  LISTEN_PID and WATCHDOG_PID name the command, and NOTIFY_SOCKET a socket whose messages the wrapper passes on.";

/// The command line, for whoever describes it.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Reads the command line and the environment, and starts logging as they ask for.
///
/// # Errors
/// How to end instead of running anything: after `--help` and `--version`, and after a mistake, which has been
/// told.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Settings, Ending> {
    let (arguments, matches) = command_line::parse::<Arguments>(words).map_err(|stop| match stop {
        Stop::Answered => Ending::Code(0),
        Stop::Mistake(mistake) => refuse(&mistake),
    })?;
    logging::start(arguments.log_level, arguments.log_format);
    Settings::new(arguments, &matches).map_err(|refusal| refuse(&refusal))
}

fn refuse<E: std::error::Error + Hint + 'static>(error: &E) -> Ending {
    complain(&report(PROGRAM, error));
    Ending::Code(OWN_FAILURE)
}
