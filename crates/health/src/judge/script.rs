//! What a program's end means.

use crate::machine::{Outcome, Weight};
use crate::why::Why;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// 0 is well. With `weight_from_exit` codes from 2 are well too, and are the weight and 2.
pub fn judge(exit: Exit, weight_from_exit: bool) -> Outcome {
    match exit {
        Exit::Code(0) => Ok(Weight::Keep),
        Exit::Code(code @ 2..) if weight_from_exit => Ok(Weight::Set(u32::from(code) - 2)),
        Exit::Code(code) => Err(Why::new(format!("exit code {code}"))),
        Exit::Signal(signal) => Err(Why::new(format!("ended by signal {signal}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (exit, plain, weighed) in [
            (Exit::Code(0), Ok(Weight::Keep), Ok(Weight::Keep)),
            (Exit::Code(1), Err("exit code 1"), Err("exit code 1")),
            (Exit::Code(2), Err("exit code 2"), Ok(Weight::Set(0))),
            (Exit::Code(255), Err("exit code 255"), Ok(Weight::Set(253))),
            (Exit::Signal(15), Err("ended by signal 15"), Err("ended by signal 15")),
        ] {
            assert_eq!(judge(exit, false), plain.map_err(Why::of), "{exit:?}");
            assert_eq!(judge(exit, true), weighed.map_err(Why::of), "{exit:?}");
        }
    }
}
