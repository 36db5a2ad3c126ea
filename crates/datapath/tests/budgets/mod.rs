//! What the BPF programs may take: saved in `bpf/budgets.txt` by `make budgets REASON="…"`, and held by each run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a program may take beyond what is saved, in hundredths.
const MORE: u32 = 5;
/// The columns that do not depend on the kernel.
const FIXED: [&str; 2] = ["instructions", "stack"];
const REASON: &str = "reason";
const HEAD: &str = "\
# What each BPF program takes: instructions of the object (8 bytes each) with all that is linked into it, bytes of stack, and
# instructions that the verifier of a kernel walked through. `make test` fails when one takes over 5 % more than here, or is not
# here; then make it smaller, or say what it is worth: `make budgets REASON=\"...\"` writes this file. Kernels that have no column
# are not held.
";

/// What programs take, or took: each one's numbers by the name of the column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Why they were saved, oldest first.
    pub reasons: Vec<String>,
    /// Program, column, number.
    pub programs: BTreeMap<String, BTreeMap<String, u32>>,
}

/// The column of this kernel's verifier: kernels of one series have the same.
pub fn column(release: &str) -> String {
    let series: Vec<&str> = release.trim().split('.').take(2).collect();
    format!("verified-{}", series.join("."))
}

impl Budgets {
    /// From the file's text.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut budgets = Self::default();
        let mut columns = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("{line:?}: neither a reason nor a program with its numbers");
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                [REASON, ..] => budgets.reasons.push(line.trim_start_matches(REASON).trim().to_owned()),
                ["program", names @ ..] => columns = names.iter().map(|name| (*name).to_owned()).collect(),
                [program, numbers @ ..] if !columns.is_empty() && numbers.len() == columns.len() => {
                    let of = budgets.programs.entry((*program).to_owned()).or_default();
                    for (column, number) in columns.iter().zip(numbers).filter(|(_, number)| **number != "-") {
                        of.insert(column.clone(), number.parse().map_err(|_| wrong())?);
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(budgets)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut columns: Vec<&str> = FIXED.to_vec();
        let mut kernels: Vec<&str> = self.programs.values().flatten().map(|(column, _)| &**column).collect();
        kernels.retain(|column| !FIXED.contains(column));
        kernels.sort_unstable();
        kernels.dedup();
        columns.extend(kernels);
        let width = self.programs.keys().map(String::len).max().unwrap_or(0);
        let mut text = format!("{HEAD}\n");
        let mut line = |first: &str, rest: &[String]| {
            let rest = rest
                .iter()
                .zip(&columns)
                .fold(String::new(), |all, (cell, column)| format!("{all}  {cell:>width$}", width = column.len()));
            let _ = writeln!(text, "{first:width$}{rest}");
        };
        for reason in &self.reasons {
            line(&format!("{REASON} {reason}"), &[]);
        }
        line("program", &columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>());
        for (program, numbers) in &self.programs {
            let cell = |column: &&str| numbers.get(*column).map_or("-".to_owned(), u32::to_string);
            line(program, &columns.iter().map(cell).collect::<Vec<_>>());
        }
        text
    }

    /// What programs take more than is saved, and what is saved of none, or of none any more.
    pub fn exceeded(&self, now: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (program, numbers) in &now.programs {
            let Some(saved) = self.programs.get(program) else {
                wrong.push(format!("{program}: nothing is saved of it"));
                continue;
            };
            for (column, number) in numbers {
                match saved.get(column) {
                    Some(budget) if u64::from(*number) * 100 > u64::from(*budget) * u64::from(100 + MORE) => {
                        wrong.push(format!("{program}: {column} {number}, and {budget} is saved"));
                    }
                    None if FIXED.contains(&&**column) => wrong.push(format!("{program}: no {column} is saved")),
                    _ => {}
                }
            }
        }
        let gone = self.programs.keys().filter(|program| !now.programs.contains_key(*program));
        wrong.extend(gone.map(|program| format!("{program}: saved, and there is no such program")));
        wrong
    }

    /// What is now, with the columns of other kernels and the reasons as they were saved; and why it is saved.
    pub fn saved_anew(&self, now: &Self, reason: &str) -> Self {
        let mut anew = now.clone();
        for (program, numbers) in &mut anew.programs {
            for (column, number) in self.programs.get(program).into_iter().flatten() {
                numbers.entry(column.clone()).or_insert(*number);
            }
        }
        anew.reasons = self.reasons.iter().cloned().chain([reason.to_owned()]).collect();
        anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(programs: &[(&str, &[(&str, u32)])]) -> Budgets {
        let numbers = |numbers: &[(&str, u32)]| numbers.iter().map(|(column, n)| ((*column).to_owned(), *n)).collect();
        let programs = programs.iter().map(|(name, of)| ((*name).to_owned(), numbers(of))).collect();
        Budgets { reasons: Vec::new(), programs }
    }

    #[test]
    fn a_program_that_takes_over_5_percent_more_is_named() {
        let saved = budgets(&[("a", &[("instructions", 100), ("stack", 64), ("verified-6.18", 1000)])]);
        let within = budgets(&[("a", &[("instructions", 105), ("stack", 64), ("verified-6.18", 1050)])]);
        assert_eq!(saved.exceeded(&within), [""; 0]);
        let beyond = budgets(&[("a", &[("instructions", 106), ("stack", 96), ("verified-6.18", 1051)])]);
        let told = ["instructions 106, and 100", "stack 96, and 64", "verified-6.18 1051, and 1000"];
        assert_eq!(saved.exceeded(&beyond), told.map(|what| format!("a: {what} is saved")));
        // Another kernel's verifier walks otherwise.
        let elsewhere = budgets(&[("a", &[("instructions", 100), ("stack", 64), ("verified-6.1", 9000)])]);
        assert_eq!(saved.exceeded(&elsewhere), [""; 0]);
        let others = budgets(&[("b", &[("instructions", 1), ("stack", 32)])]);
        assert_eq!(saved.exceeded(&others).len(), 2);
    }

    #[test]
    fn what_is_written_is_read_again_and_other_kernels_keep_their_columns() {
        let mut saved = budgets(&[
            ("a_long_name", &[("instructions", 100), ("stack", 64), ("verified-6.1", 1000)]),
            ("gone", &[("instructions", 1), ("stack", 32)]),
        ]);
        saved.reasons.push("2026-11-30 The first.".to_owned());
        let now = budgets(&[
            ("a_long_name", &[("instructions", 200), ("stack", 64), ("verified-6.18", 2000)]),
            ("b", &[("instructions", 7), ("stack", 32), ("verified-6.18", 9)]),
        ]);
        let anew = saved.saved_anew(&now, "2026-12-01 It balances now.");
        assert_eq!(anew.reasons, ["2026-11-30 The first.", "2026-12-01 It balances now."]);
        assert_eq!(anew.programs["a_long_name"]["verified-6.1"], 1000);
        assert!(!anew.programs.contains_key("gone") && anew.exceeded(&now).is_empty());
        assert_eq!(Budgets::read(&anew.text()).unwrap(), anew);
        assert!(Budgets::read("a 1 2").unwrap_err().contains("neither"));
        assert_eq!(column("6.18.5-x\n"), "verified-6.18");
    }
}
