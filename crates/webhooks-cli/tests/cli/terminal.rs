//! A terminal of a few lines: `script` of util-linux, which a bare machine has.

use std::process::{Command, Stdio};

use crate::program::{Ended, Place};

/// Runs the program at a terminal; all of its output is in `out`, with `\r\n` at the end of lines.
pub(crate) fn at_terminal(place: &Place, words: &[&str]) -> Ended {
    let program = place.command(words);
    let line = [program.get_program()].into_iter().chain(program.get_args());
    let line = shlex::try_join(line.map(|word| word.to_str().unwrap())).unwrap();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    script.current_dir(place.folder.path()).env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
    script
        .env("TERM", "xterm")
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // If it were closed, an end of the input would be typed.
    let input = child.stdin.take();
    let ended = Ended::new(child.wait_with_output().unwrap());
    drop(input);
    ended
}
