//! On a real terminal.

use std::os::unix::process::ExitStatusExt;

use crate::support::pty::Terminal;
use crate::support::{Place, WRAPPER, children_of, foreground_group, wait_until};

const COUNTER: &str = "
import signal, time
count = 0
def heard(number, _):
    global count
    count += 1
    print('heard', number, 'for the', count, flush=True)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGHUP):
    signal.signal(number, heard)
print('ready', flush=True)
while True:
    try: input()
    except EOFError: time.sleep(600)
    except OSError: time.sleep(600)
    else: print('count is', count, flush=True)
";

fn counter(place: &Place) -> Terminal {
    let mut command = place.program(WRAPPER);
    command.args(["--id=counter", "python3", "-c", COUNTER]);
    let terminal = Terminal::start(command);
    terminal.wait_to_see("ready");
    terminal
}

#[test]
fn what_is_typed_reaches_the_command_and_its_interrupts_arrive_once() {
    let place = Place::new();
    let mut terminal = counter(&place);
    terminal.type_in("\x03");
    terminal.wait_to_see("heard 2 for the 1");
    terminal.type_in("\x1c");
    terminal.wait_to_see("heard 3 for the 2");
    terminal.type_in("\n");
    terminal.wait_to_see("count is 2");
}

#[test]
fn ctrl_c_ends_both_and_the_service_leaves_the_registry() {
    let place = Place::new();
    let mut command = place.program(WRAPPER);
    command.args(["--id=sleeper", "sleep", "600"]);
    let mut terminal = Terminal::start(command);
    wait_until("the registration", || place.lists("sleeper"));
    terminal.type_in("\x03");
    assert_eq!(terminal.program.wait().signal(), Some(libc::SIGINT));
    assert_eq!(place.events(), ["join sleeper", "remove sleeper"]);
}

#[test]
fn a_hang_up_reaches_the_command() {
    let place = Place::new();
    let mut command = place.program(WRAPPER);
    command.args(["--id=hangup", "sleep", "600"]);
    let terminal = Terminal::start(command);
    wait_until("the registration", || place.lists("hangup"));
    let mut program = terminal.hang_up();
    assert_eq!(program.wait().signal(), Some(libc::SIGHUP));
}

#[test]
fn job_control_works_as_without_the_wrapper() {
    let place = Place::new();
    let mut command = place.program("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "prompt> ").env_remove("PROMPT_COMMAND");
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see("prompt> ");
    terminal.type_in(&format!("{WRAPPER} --id=job sh -c 'echo up to $((40 + 1)); exec cat'\n"));
    terminal.wait_to_see("up to 41");
    terminal.type_in("\x1a");
    terminal.wait_to_see("Stopped");
    terminal.type_in("jobs; echo the shell is $((40 + 2))\n");
    terminal.wait_to_see("the shell is 42");
    terminal.type_in("fg\n");
    // The shell tells what it continues; what is typed earlier is the shell's.
    terminal.wait_to_see_times("exec cat'", 4);
    terminal.type_in("echo through the cat\n");
    // Once as it is typed, once from cat.
    terminal.wait_to_see_times("echo through the cat", 2);
    terminal.type_in("\x04");
    terminal.type_in("echo status $?\n");
    terminal.wait_to_see("status 0");
    terminal.type_in(&format!("{WRAPPER} --id=job cat &\n"));
    // In the background, a read from the terminal stops it.
    terminal.type_in("sleep 0.2; jobs\n");
    terminal.wait_to_see_times("Stopped", 3);
}

#[test]
fn a_group_of_its_own_has_the_terminal_and_gives_it_back() {
    let place = Place::new();
    let mut command = place.program("sh");
    let script = format!(
        "{WRAPPER} --id=own --signal-group python3 -c \"$COUNTER\"; echo ended $?; read line; echo got $line"
    );
    command.args(["-c", &script]).env("COUNTER", COUNTER.replace("time.sleep(600)", "break"));
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see("ready");
    wait_until("the registration", || place.lists("own"));
    terminal.type_in("\x03");
    terminal.wait_to_see("heard 2 for the 1");
    terminal.type_in("\n");
    terminal.wait_to_see("count is 1");
    terminal.type_in("\x04");
    terminal.wait_to_see("ended 0");
    // What started us reads on.
    terminal.type_in("this\n");
    terminal.wait_to_see("got this");
}

#[test]
fn ctrl_c_to_a_group_of_its_own_takes_the_service_out() {
    let place = Place::new();
    let mut command = place.program("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "prompt> ");
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see("prompt> ");
    terminal.type_in(&format!("{WRAPPER} --id=own --signal-group sleep 600\n"));
    wait_until("the registration", || place.lists("own"));
    terminal.type_in("\x1a");
    terminal.wait_to_see("Stopped");
    terminal.type_in("fg\n");
    // What is typed before the shell has handed the terminal over is the shell's.
    let sleep = children_of(terminal.program.child()).first().copied().unwrap();
    wait_until("the hand-over", || foreground_group(sleep) == Some(sleep));
    terminal.type_in("\x03");
    terminal.type_in("echo status $?\n");
    terminal.wait_to_see("status 130");
    assert_eq!(place.events(), ["join own", "remove own"]);
}
