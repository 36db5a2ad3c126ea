//! Stories: documents whose commands are run in a lab, and whose output is what these printed.
//!
//! In a block ```` ```sh ```` each line is a command, which is run and whose output is not shown. A block ```` ```console ```` has
//! one command after `# `, and below it what it printed. All of them are as a reader would give them, for the lab `lab`; they are
//! run in a lab of another name, so that nobody's is disturbed.

use std::path::Path;
use std::process::Command;

/// The lab that readers have.
const READERS: &str = "lab";

/// A block of a document.
#[derive(Debug, PartialEq, Eq)]
enum Block<'t> {
    /// Anything else, as it is.
    Text(&'t str),
    /// Commands whose output is not shown.
    Commands(Vec<&'t str>),
    /// A command, and its output.
    Shown(&'t str),
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>, String> {
    let mut all = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let inside = |lines: &mut std::str::Lines<'_>| lines.by_ref().take_while(|line| *line != "```").count();
        match line {
            "```sh" => {
                let commands: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                all.push(Block::Commands(commands));
            }
            "```console" => {
                let command = lines.next().and_then(|line| line.strip_prefix("# "));
                all.push(Block::Shown(command.ok_or("a block of console begins with no `# COMMAND`")?));
                inside(&mut lines);
            }
            other => all.push(Block::Text(other)),
        }
    }
    Ok(all)
}

/// What differs from run to run.
fn steady(output: &str, lab: &str) -> String {
    let mut out = String::new();
    // A request is made again, from the next port, until it goes to the server that the lab's walk wants.
    let first =
        (40_001..40_010).fold(output.replace(lab, READERS), |text, port| text.replace(&format!(":{port} "), ":40000 "));
    for line in first.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let steady = words.iter().enumerate().map(|(at, word)| {
            let next = words.get(at + 1).copied().unwrap_or_default();
            let after = words.get(at + 2).copied().unwrap_or_default();
            let number = word.trim_start_matches('+');
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let volatile = ["µs", "resets", "bytes,"].contains(&next) || (next == "packets" && after == "dropped");
            // 2026-11-30T08:00:00.123456Z
            let is_time = word.len() == 27 && word.ends_with('Z') && word.as_bytes().get(10) == Some(&b'T');
            match () {
                () if is_number && volatile => word.replace(number, "N"),
                () if is_time => "TIME".to_owned(),
                () => (*word).to_owned(),
            }
        });
        out.push_str(steady.collect::<Vec<_>>().join(" ").trim_end());
        out.push('\n');
    }
    out
}

/// A command of the document, for the lab of that name.
fn command(dirigent: &Path, lab: &str, line: &str) -> Result<Command, String> {
    let rest = line.strip_prefix("dirigent lab ").ok_or_else(|| format!("{line:?} is no command of `dirigent lab`"))?;
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut shell = Command::new("sh");
    let script = format!("exec {} lab {verb} --name {lab} {rest}", dirigent.display());
    shell.args(["-c", &script]);
    Ok(shell)
}

fn run(dirigent: &Path, lab: &str, line: &str) -> Result<String, String> {
    let output = command(dirigent, lab, line)?.output().map_err(|e| format!("{line}: {e}"))?;
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    // What fails in a story is to fail, and says so itself.
    if out.is_empty() && !output.status.success() {
        return Err(format!("{line}: {err}"));
    }
    Ok(out)
}

/// The story anew: its commands run by this program in a lab of that name, which is gone afterwards.
pub fn retold(text: &str, dirigent: &Path, lab: &str) -> Result<String, String> {
    let told = tell(text, dirigent, lab);
    let gone = run(dirigent, lab, "dirigent lab down");
    told.and_then(|told| gone.map(|_| told))
}

fn tell(text: &str, dirigent: &Path, lab: &str) -> Result<String, String> {
    let mut told = String::new();
    for block in blocks(text)? {
        match block {
            Block::Text(line) => told.push_str(line),
            Block::Commands(lines) => {
                for line in &lines {
                    run(dirigent, lab, line)?;
                }
                told.push_str(&format!("```sh\n{}\n```", lines.join("\n")));
            }
            Block::Shown(line) => {
                let output = steady(&run(dirigent, lab, line)?, lab);
                told.push_str(&format!("```console\n# {line}\n{output}```"));
            }
        }
        told.push('\n');
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_block_by_block() {
        let text = "A word.\n\n```sh\ndirigent lab up\ndirigent lab down\n```\n```console\n# dirigent lab walk\nold\n```\nEnd.\n";
        let read = [
            Block::Text("A word."),
            Block::Text(""),
            Block::Commands(vec!["dirigent lab up", "dirigent lab down"]),
            Block::Shown("dirigent lab walk"),
            Block::Text("End."),
        ];
        assert_eq!(blocks(text).unwrap(), read);
        assert!(blocks("```console\nnone\n```\n").is_err());
    }

    #[test]
    fn what_differs_from_run_to_run_is_not_told() {
        let output = "td7-0-client eth0  TTL 64 +123 µs  \nPSH+ACK 75 bytes, \"GET /\"\n  3 resets sent\n12 packets dropped as invalid\n5 packets\n2026-11-30T08:00:00.123456Z tcp 198.51.100.7:40003 →\n";
        let told = "lab-client eth0  TTL 64 +N µs\nPSH+ACK N bytes, \"GET /\"\n  N resets sent\nN packets dropped as invalid\n5 packets\nTIME tcp 198.51.100.7:40000 →\n";
        assert_eq!(steady(output, "td7-0"), told);
    }

    #[test]
    fn only_commands_of_labs_are_run() {
        assert!(command(Path::new("dirigent"), "x", "rm -r /").is_err());
        let up = command(Path::new("/bin/dirigent"), "x", "dirigent lab up --servers 2").unwrap();
        let script = up.get_args().last().unwrap();
        assert_eq!(script, "exec /bin/dirigent lab up --name x --servers 2");
    }
}
