//! Durations as people write them: `300s`, `15m`, `500ms`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The duration, or None.
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*ms).map(Duration::from_millis)
}

/// The shortest exact writing. Parts of milliseconds are dropped.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = UNITS.iter().find(|(_, unit)| ms >= *unit && ms % unit == 0);
    fits.map_or("0s".into(), |(name, unit)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for text in ["0s", "1ms", "1500ms", "90s", "15m", "2h", "31d"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(parse("120s"), parse("2m"));
        for bad in
            ["", "s", "10", "-1s", "1.5s", "1 s", "1w", "1S", "99999999999999999999s", "9999999999999999999d", "١s"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
