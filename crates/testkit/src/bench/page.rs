//! The page that cases, floors and goals come from, held against what is measured.

use super::cases;

/// The cells of the rows of the table below a heading.
fn table<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|'));
    let cells = |line: &'p str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('*')).collect();
    lines.skip(2).map(cells).collect()
}

/// The numbers in a goal: `≤ 1.5 x hot floor` has one.
fn numbers(goal: &str) -> Vec<f64> {
    let words = goal.split_whitespace().collect::<Vec<_>>();
    let factor = |pair: &[&str]| match pair {
        ["≤", number] => number.parse().ok(),
        _ => None,
    };
    words.windows(2).filter_map(factor).collect()
}

/// What the page has that is not measured, or is measured against another goal.
#[must_use]
pub fn differences(page: &str) -> Vec<String> {
    let mut all = Vec::new();
    let floors = table(page, "## 1.");
    let goals = table(page, "## 3.");
    if floors.is_empty() || goals.is_empty() {
        all.push("the page has no tables in §1 and §3".into());
    }
    for name in floors.iter().filter_map(|row| row.first()).filter(|name| !cases::FLOORS.contains(name)) {
        all.push(format!("floor `{name}` of the page is not measured"));
    }
    for cells in goals {
        let [row, goal, ..] = cells.as_slice() else { continue };
        match cases::GOALS.iter().find(|(known, _)| known == row) {
            None => all.push(format!("case `{row}` of the page is not measured")),
            Some((_, ours)) if numbers(goal) != *ours => {
                all.push(format!("case `{row}`: the page's goal is `{goal}`, ours {ours:?}"));
            }
            Some(_) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    const PAGE: &str = "## 1. The floors\n| floor | does | min |\n|---|---|---|\n| macswap | swaps | 13 |\n| **hot floor** | all | 38 |\n\
        ## 3. Goals\n| case | goal |\n|---|---|\n| GUE | ≤ 2 x hot floor |\n| UDP known connection | ≤ 1.5 x hot floor |\n";

    #[test]
    fn a_page_that_asks_for_more_or_for_less_is_noticed() {
        assert_eq!(differences(PAGE), Vec::<String>::new());
        let page = PAGE.replace("GUE", "QUIC").replace("1.5", "1.1").replace("macswap", "nothing");
        assert_eq!(differences(&page).len(), 3, "{:?}", differences(&page));
        assert_eq!(differences("").len(), 1);
    }

    /// Each row has a case whose goals are the row's.
    #[test]
    fn every_row_has_cases_with_its_goals() {
        let all = cases::all(&Options::default());
        for (row, goals) in cases::GOALS.iter().filter(|(row, _)| *row != cases::row::ALL_IN) {
            for goal in *goals {
                let has = |case: &&cases::Case| case.goals.iter().any(|g| g.factor == Some(*goal));
                assert!(all.iter().filter(|case| case.row == Some(*row)).any(|case| has(&case)), "{row}: {goal}");
            }
        }
        for floor in cases::FLOORS {
            assert!(all.iter().any(|case| case.name == *floor), "{floor}");
        }
    }
}
