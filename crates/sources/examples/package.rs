//! How fast a payload is packed, beside the pipe `tar | gzip -6 | sha256sum` on the same data.
//!
//! `cargo run --release -p trellis-sources --example package [MIB] [RUNS]`

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and runs other programs"
)]

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use trellis_sources::{
    archive::{Mode, Packer},
    path::EntryPath,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mebibytes: u32 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let runs: u32 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = env::temp_dir().join(format!("trellis-package-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = measure(&folder, mebibytes, runs);
    fs::remove_dir_all(&folder)?;
    measured
}

fn measure(folder: &Path, mebibytes: u32, runs: u32) -> Result<(), Box<dyn Error>> {
    let size = u64::from(mebibytes) << 20;
    let payload = folder.join("payload");
    io::copy(
        &mut File::open("/dev/urandom")?.take(size),
        &mut File::create(&payload)?,
    )?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(packer(&payload, size)?);
        theirs.push(pipe(folder)?);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let rate = |time: Duration| f64::from(mebibytes) / time.as_secs_f64();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "payload            {size} bytes of /dev/urandom, median of {runs} runs in turn"
    )?;
    writeln!(out, "packer             {:8.1} MiB/s  {ours:?}", rate(ours))?;
    writeln!(out, "tar|gzip|sha256sum {:8.1} MiB/s  {theirs:?}", rate(theirs))?;
    writeln!(
        out,
        "ratio              {:8.2}",
        theirs.as_secs_f64() / ours.as_secs_f64()
    )?;
    if let Some(peak) = peak() {
        writeln!(out, "peak memory        {peak}")?;
    }
    Ok(())
}

fn packer(payload: &Path, size: u64) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let mut packer = Packer::new(File::create(payload.with_extension("tar.gz"))?);
    packer.file(&EntryPath::parse("payload")?, Mode::Plain, size, File::open(payload)?)?;
    packer.finish()?;
    Ok(start.elapsed())
}

fn pipe(folder: &Path) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let status = Command::new("sh")
        .args(["-c", "tar -cf - payload | gzip -6 | tee pipe.tar.gz | sha256sum"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(start.elapsed())
    } else {
        Err("the pipe failed".into())
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The largest resident size so far, as the kernel counts it.
fn peak() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
