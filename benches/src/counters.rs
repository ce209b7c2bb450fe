//! What processes count of themselves: the API server's writes, and the time of the processor that a process took.

use std::fs;

use http::Request;
use kube::Client;

use crate::Error;

/// Verbs that change what is stored, as the API server counts them.
const WRITES: [&str; 6] = ["APPLY", "PATCH", "POST", "PUT", "DELETE", "DELETECOLLECTION"];
/// Clock ticks in a second, as Linux tells them to programs.
const TICKS: f64 = 100.0;

/// Writes of these resources so far, as the API server counts them.
///
/// # Errors
/// When it does not say.
pub async fn written(client: &Client, resources: &[&str]) -> Result<f64, Error> {
    let text = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
    let label = |line: &str, name: &str| Some(line.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
    let counts = |line: &&str| {
        let resource = label(line, "resource").unwrap_or_default();
        line.starts_with("apiserver_request_total{")
            && resources.contains(&resource.as_str())
            && label(line, "verb").is_some_and(|verb| WRITES.contains(&verb.as_str()))
    };
    Ok(sum(text.lines().filter(counts)))
}

/// The sum of these lines of metrics.
pub fn sum<'a>(lines: impl Iterator<Item = &'a str>) -> f64 {
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Seconds of the processor that a process took so far; `self` is this one.
///
/// # Errors
/// When it is gone.
pub fn processor(process: &str) -> Result<f64, Error> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything, so the fields are counted from its end: the third is the state.
    let (_, rest) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    Ok(ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

/// The most memory that a process ever had resident, in bytes.
///
/// # Errors
/// When it is gone.
pub fn peak_memory(process: u32) -> Result<u64, Error> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.ok_or("no VmHWM")?.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_and_this_process_took_time() {
        assert!((sum(["a{b=\"c d\"} 1.5", "a 2", "# none", "a x"].into_iter()) - 3.5).abs() < f64::EPSILON);
        let before = processor("self").unwrap();
        let mut state = 1_u64;
        while processor("self").unwrap() - before < 0.02 {
            for _ in 0..100_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
        }
        assert_ne!(state, 0);
        assert!(peak_memory(std::process::id()).unwrap() > 1 << 20);
    }
}
