//! `--dry-run`: what would be sent and run, printed.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::args::{Destination, Late, Rendering, Settings};
use super::child::Group;
use super::ending::{Ending, OWN_FAILURE};
use super::fitness::PortRule;
use super::supervision::Deregister;
use super::{PROGRAM, holder, runtime};
use crate::message::{complain, report};
use crate::model::InstanceId;
use crate::registry::{self, Claim, Error, IfTaken, Rehearsal, Rehearsed, Step};

/// What a port is shown as that is not known before the command runs.
const PORT: &str = "<port>";

/// Prints it, and says how we are to end.
pub(super) fn perform(settings: &Settings, rendering: Rendering) -> Ending {
    settings.tell_warnings();
    let runtime = match runtime(settings) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{PROGRAM}: {error}\n"));
            return Ending::Code(OWN_FAILURE);
        }
    };
    let registries = match registries(settings, rendering, &runtime) {
        Ok(registries) => registries,
        Err(error) => {
            complain(&report(PROGRAM, &error));
            return Ending::Code(OWN_FAILURE);
        }
    };
    let command = command(settings);
    let all = match rendering {
        Rendering::Json => format!("{{\"registries\":[{}],\"command\":{command}}}\n", registries.join(",")),
        Rendering::Text => format!("{}Command\n{}", registries.concat(), lines(&command, 1)),
    };
    // Whoever reads may have read enough.
    let _ = std::io::stdout().write_all(all.as_bytes());
    Ending::Code(0)
}

/// What is sent to each, in the order in which they were said.
fn registries(settings: &Settings, rendering: Rendering, runtime: &Runtime) -> Result<Vec<String>, Error> {
    let pid = fastrand::u32(3_000_000..4_000_000);
    let mut shown = Vec::new();
    for destination in &settings.registries {
        let port = port(settings, destination);
        let claim = Claim {
            instance: InstanceId::unique(),
            holder: holder(&"<pid of the wrapper>"),
            if_taken: IfTaken::Refuse,
        };
        let registry = registry::connect(&destination.url, &destination.access);
        let registration = settings.registration(destination, Late { pid, port });
        let mut rehearsal = runtime.block_on(registry.rehearse(&registration, &claim))?;
        if settings.stop_policy().deregister == Deregister::Never {
            rehearsal.requests.retain(|request| request.step != Step::Deregistration);
        }
        rehearsal.stand_ins.push((claim.instance.to_string(), "<instance>"));
        rehearsal.stand_ins.push((pid.to_string(), "<pid>"));
        rehearsal.stand_ins.extend(port.or(settings.chosen_port).map(|port| (port.to_string(), PORT)));
        for request in &mut rehearsal.requests {
            request.rename(&rehearsal.stand_ins);
        }
        shown.push(match rendering {
            Rendering::Json => as_json(destination, &rehearsal),
            Rendering::Text => as_text(destination, &rehearsal),
        });
    }
    Ok(shown)
}

/// What stands in for a port that is to be found: none that is said anywhere.
fn port(settings: &Settings, destination: &Destination) -> Option<u16> {
    (settings.fitness.port == PortRule::Found).then_some(())?;
    let said = format!("{:?}", settings.registration(destination, Late { pid: 1, port: Some(1) }));
    (10_000..=u16::MAX).rev().find(|port| !said.contains(&port.to_string()))
}

fn as_json(destination: &Destination, rehearsal: &Rehearsal) -> String {
    let requests: Vec<_> = rehearsal.requests.iter().map(Rehearsed::to_json).collect();
    json!({"url": destination.url.to_string(), "requests": requests}).to_string()
}

fn as_text(destination: &Destination, rehearsal: &Rehearsal) -> String {
    let mut text = format!("Registry {}\n", destination.url);
    let mut step = None;
    for request in &rehearsal.requests {
        if step.replace(request.step) != Some(request.step) {
            let _ = writeln!(text, "  {}", request.step.as_str());
        }
        let note = if request.note.is_empty() { String::new() } else { format!("  # {}", request.note) };
        let _ = writeln!(text, "    {} {}{note}", request.method, request.target);
        for (name, value) in &request.headers {
            let _ = writeln!(text, "      {name}: {}", value.as_str().unwrap_or_default());
        }
        if !request.body.is_null() {
            let body = format!("{:#}", request.body);
            for line in body.lines() {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    text.push('\n');
    text
}

/// What is run, and how.
fn command(settings: &Settings) -> Value {
    let policy = settings.stop_policy();
    let arguments: Vec<_> = settings.launch.command.iter().map(|word| word.to_string_lossy()).collect();
    let directory = std::env::current_dir().unwrap_or_default();
    let secrets = &settings.launch.environment.secrets;
    let removed: Vec<_> = secrets.iter().filter(|name| std::env::var_os(name).is_some()).collect();
    let own = std::process::id().to_string();
    let mut set = Map::new();
    for (name, value) in [("LISTEN_PID", "<pid>"), ("WATCHDOG_PID", "<pid>")] {
        if std::env::var(name).is_ok_and(|pid| pid == own) {
            set.insert(name.to_owned(), value.into());
        }
    }
    if std::env::var_os("NOTIFY_SOCKET").is_some() || settings.fitness.wants_notify() {
        set.insert("NOTIFY_SOCKET".to_owned(), "<socket of the wrapper>".into());
    }
    for (name, value) in settings.launch.environment.settings() {
        let is_chosen = settings.chosen_port.is_some_and(|port| port.to_string() == value);
        set.insert(name.to_owned(), if is_chosen { PORT } else { value }.into());
    }
    let killed = policy.stop_timeout.map(|span| humantime::format_duration(span).to_string());
    json!({
        "arguments": arguments,
        "directory": directory.to_string_lossy(),
        "stop_signal": policy.stop_signal.to_string(),
        "stop_timeout": killed,
        "process_group": if policy.group == Group::Own { "own" } else { "shared" },
        "environment": {"removed": removed, "set": set},
    })
}

/// Each member in a line.
fn lines(object: &Value, depth: usize) -> String {
    let mut text = String::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        // Variables stay as they are.
        let is_ours = name.chars().all(|letter| !letter.is_uppercase());
        let name = if is_ours { name.replace('_', " ") } else { name.clone() };
        let _ = match value {
            Value::Object(none) if none.is_empty() => writeln!(text, "{indent}{name}: none"),
            Value::Object(_) => write!(text, "{indent}{name}:\n{}", lines(value, depth + 1)),
            Value::String(value) => writeln!(text, "{indent}{name}: {value}"),
            Value::Null => writeln!(text, "{indent}{name}: none"),
            value => writeln!(text, "{indent}{name}: {value}"),
        };
    }
    text
}
