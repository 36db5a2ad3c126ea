//! A number in a file.

use crate::machine::{Outcome, Weight};
use crate::why::Why;

/// Bytes of the file that are worth reading: a number of 64 bits is far shorter.
pub const ENOUGH: usize = 64;

/// The file's first [`ENOUGH`] bytes; None: there is no such file, which is a 0.
///
/// With a weight the number times it is added to the server's, or taken away if it is `reverse`. With weight 0 a
/// number other than 0 is a failure; `reverse`: 0 is one.
///
/// A file that is empty is none with a 0: whoever writes one, by emptying it first, is not done. The next try sees.
pub fn judge(text: Option<&[u8]>, weight: i32, reverse: bool) -> Outcome {
    let number = match text {
        None => 0,
        Some(text) => number(text).ok_or_else(|| Why::quoting("the file holds", text))?,
    };
    match (weight, number != 0) {
        (0, set) if set == reverse => Ok(Weight::Keep),
        (0, true) => Err(Why::new(format!("the file holds {number}"))),
        (0, false) => Err(Why::of(if text.is_some() { "the file holds 0" } else { "there is no file" })),
        (weight, _) => {
            let product = i64::from(weight).saturating_mul(number);
            Ok(Weight::Add(if reverse { product.saturating_neg() } else { product }))
        }
    }
}

/// A decimal number with blanks around it; one that is too large is the largest.
fn number(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = std::str::from_utf8(digits).ok()?.parse().unwrap_or(i64::MAX);
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Weight::{Add, Keep};
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (text, weight, reverse, expected) in [
            (Some("5\n"), 2, false, Ok(Add(10))),
            (Some("5"), 2, true, Ok(Add(-10))),
            (Some(" -5 \n"), 2, false, Ok(Add(-10))),
            (Some("+5"), -2, false, Ok(Add(-10))),
            (Some("0"), 2, false, Ok(Add(0))),
            (None, 2, false, Ok(Add(0))),
            (None, 0, false, Ok(Keep)),
            (Some("0\n"), 0, false, Ok(Keep)),
            (Some("1\n"), 0, false, Err("the file holds 1")),
            (Some("-1\n"), 0, false, Err("the file holds -1")),
            (Some("1\n"), 0, true, Ok(Keep)),
            (Some("0\n"), 0, true, Err("the file holds 0")),
            (None, 0, true, Err("there is no file")),
            (Some(""), 2, false, Err("the file holds \"\"")),
            (Some("\n"), 0, false, Err("the file holds \"\\n\"")),
            (Some("up"), 2, false, Err("the file holds \"up\"")),
            (Some("1 2"), 2, false, Err("the file holds \"1 2\"")),
            (Some("-"), 2, false, Err("the file holds \"-\"")),
            (Some("99999999999999999999"), i32::MAX, false, Ok(Add(i64::MAX))),
            (Some("-99999999999999999999"), -i32::MAX, true, Ok(Add(-i64::MAX))),
        ] {
            let found = judge(text.map(str::as_bytes), weight, reverse);
            assert_eq!(found, expected.map_err(Why::of), "{text:?} {weight} {reverse}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64), weight in any::<i32>(), reverse in any::<bool>()) {
            let _ = judge(Some(&bytes), weight, reverse);
        }
    }
}
