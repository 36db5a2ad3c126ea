//! Numbers and times, as short as a narrow column wants them.

use crate::print;
use std::time::{Duration, Instant};

/// `99999`, `123.4 k`, `5.0 M`.
pub fn number(count: f64) -> String {
    if count < 100_000.0 {
        return format!("{count:.0}");
    }
    let mut value = count;
    for unit in ["", "k", "M"] {
        if value < 1000.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} G")
}

/// The same of what happens each second: what is less than ten of something has a decimal, if it is not 0.
pub fn rate(each_second: f64) -> String {
    if each_second > 0.0 && each_second < 9.95 { format!("{each_second:.1}") } else { number(each_second) }
}

/// `1.5 kB`.
pub fn bytes(count: f64) -> String {
    print::bytes(count.round() as u64)
}

/// `45 s`, `12 min`, `3 h 12 min`, `5 d 3 h`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The same in its largest unit only: `3 h`.
pub fn roughly(seconds: u64) -> String {
    let span = span(seconds);
    span.match_indices(' ').nth(1).and_then(|(end, _)| span.get(..end)).map_or(span.clone(), str::to_owned)
}

/// The time since then.
pub fn age(now: Instant, then: Instant) -> String {
    span(now.saturating_duration_since(then).as_secs())
}

/// `500 ms`, `2 s`, `1.5 s`.
pub fn interval(interval: Duration) -> String {
    match interval.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{:.1} s", ms as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 12.6, 99_999.0, 123_456.0, 2_500_000.0, 7.2e9, 1.5e13].map(number);
        assert_eq!(numbers, ["0", "13", "99999", "123.5 k", "2.5 M", "7.2 G", "15000.0 G"]);
        assert_eq!([0.0, 0.5, 9.94, 9.96, 250.4].map(rate), ["0", "0.5", "9.9", "10", "250"]);
        assert_eq!([0.0, 1499.6, 2e6].map(bytes), ["0 B", "1.5 kB", "2.0 MB"]);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(
            [0, 59, 60, 3599, 3600, 11_520, 86_400, 442_800].map(span),
            ["0 s", "59 s", "1 min", "59 min", "1 h 0 min", "3 h 12 min", "1 d 0 h", "5 d 3 h"]
        );
        assert_eq!([59, 3599, 11_520, 442_800].map(roughly), ["59 s", "59 min", "3 h", "5 d"]);
        let then = Instant::now();
        assert_eq!((age(then + Duration::from_secs(61), then), age(then, then)), ("1 min".into(), "0 s".into()));
        assert_eq!([100, 1000, 1500].map(|ms| interval(Duration::from_millis(ms))), ["100 ms", "1 s", "1.5 s"]);
    }
}
