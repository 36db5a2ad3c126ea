//! What iperf3 and wrk say.

use serde_json::Value;

/// A transfer by iperf3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Bytes that arrived, of all streams.
    pub bytes: f64,
    /// In so many seconds.
    pub seconds: f64,
}

/// Reads what `iperf3 --json` printed.
pub fn iperf3(json: &str) -> Result<Transfer, String> {
    let value: Value = serde_json::from_str(json).map_err(|e| format!("iperf3's output is no JSON ({e}): {json}"))?;
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        return Err(format!("iperf3: {error}"));
    }
    let received = value.pointer("/end/sum_received");
    let number = |name: &str| received.and_then(|sum| sum.get(name)).and_then(Value::as_f64);
    match (number("bytes"), number("seconds")) {
        (Some(bytes), Some(seconds)) if bytes > 0.0 && seconds > 0.0 => Ok(Transfer { bytes, seconds }),
        _ => Err("iperf3 received nothing".to_owned()),
    }
}

/// Requests by wrk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requests {
    /// Answered ones.
    pub answered: f64,
    /// Of them a second.
    pub rate: f64,
    /// Connections that could not be made, broke or had to wait too long, and answers of another status.
    pub errors: u64,
}

/// Reads what wrk printed.
pub fn wrk(text: &str) -> Result<Requests, String> {
    let lines = || text.lines().map(str::trim);
    let after = |begin: &str| lines().find_map(|line| line.strip_prefix(begin));
    let answered = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok());
    let rate = after("Requests/sec:").and_then(|rate| rate.trim().parse().ok());
    let errors = ["Socket errors:", "Non-2xx or 3xx responses:"].map(|begin| {
        let words = after(begin).unwrap_or_default().split([' ', ',']);
        words.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>()
    });
    match (answered, rate) {
        (Some(answered), Some(rate)) => Ok(Requests { answered, rate, errors: errors.iter().sum() }),
        _ => Err(format!("wrk says no rate: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_what_arrived() {
        let json = r#"{"start":{},"intervals":[],"end":{"streams":[],
            "sum_sent":{"start":0,"end":1.5,"seconds":1.5,"bytes":300000,"bits_per_second":1600000,"retransmits":3,"sender":true},
            "sum_received":{"start":0,"end":1.6,"seconds":1.6,"bytes":200000,"bits_per_second":1000000,"sender":true}}}"#;
        assert_eq!(iperf3(json), Ok(Transfer { bytes: 200_000.0, seconds: 1.6 }));
    }

    #[test]
    fn a_transfer_that_failed_says_why() {
        let refused = r#"{"start":{},"end":{},"error":"unable to connect to server: Connection refused"}"#;
        assert!(iperf3(refused).unwrap_err().contains("refused"));
        let nothing = r#"{"end":{"sum_received":{"seconds":1.0,"bytes":0}}}"#;
        assert!(iperf3(nothing).is_err() && iperf3("").is_err());
    }

    const WRK: &str = "Running 1s test @ http://192.0.2.10/\n  1 threads and 64 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
        Latency     6.14ms    1.30ms  14.91ms   77.14%\n    Req/Sec    10.46k     1.01k   11.87k    72.73%\n  11446 requests in 1.10s, 1.89MB read\n";

    #[test]
    fn requests_are_those_that_were_answered() {
        let fine = format!("{WRK}Requests/sec:  10410.61\nTransfer/sec:      1.72MB\n");
        assert_eq!(wrk(&fine), Ok(Requests { answered: 11446.0, rate: 10410.61, errors: 0 }));
        let errors = "  Socket errors: connect 1, read 20, write 0, timeout 300\n  Non-2xx or 3xx responses: 4000\nRequests/sec:  10.5\n";
        assert_eq!(wrk(&format!("{WRK}{errors}")).unwrap().errors, 4321);
        assert!(wrk("unable to connect to 192.0.2.10:http No route to host").is_err());
    }
}
