// SPDX-License-Identifier: MIT
//! Where the instructions go: QEMU writes down each one's address while packets pass, and the addresses
//! are counted by the kernel's function and by the module's source line.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::lab::Lab;

/// Bytes of addresses written down: some hundred packets.
const LOG_BYTES: u64 = 192 << 20;

/// How long QEMU may take to write them, on a busy machine.
const LOG_TIMEOUT: Duration = Duration::from_secs(300);

/// How often the log's length is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Functions and lines that take less than this many instructions of a packet are left out.
const INSTRUCTIONS_SHOWN_MIN: f64 = 2.0;

/// The kernel's addresses begin here.
const KERNEL_ADDRESS_MIN: u64 = 0xffff_8000_0000_0000;

/// Every packet passes it twice: from the generator to the director, and on to the server.
const FUNCTION_OF_EVERY_PACKET: &str = "veth_xmit";
const PASSES_OF_A_PACKET: u64 = 2;

/// A packet that takes more than the median and this part of it was disturbed.
const DISTURBED_PART: usize = 5;

/// The part of the module that is profiled by line.
const MODULE: &str = "ipvs_mwlc";

/// How often each address was executed.
type Counts = HashMap<u64, u64>;

/// QEMU's options for a guest that can be profiled; the socket is made in the directory of [`socket`].
pub fn qemu_arguments(socket: &Path) -> Vec<String> {
    vec![
        "-monitor".into(),
        format!("unix:{},server=on,wait=off", socket.display()),
    ]
}

/// Runs `script`, which makes packets pass until it is told to end by `stop`, and says where the
/// instructions of a packet went.
pub fn profile(lab: &Lab, socket: &Path, start: &str, stop: &str) -> anyhow::Result<String> {
    let log = socket.with_extension("log");
    lab.run(start)?;
    let mut monitor = Monitor::connect(socket)?;
    monitor.obey("singlestep on")?;
    monitor.obey(&format!("logfile {}", log.display()))?;
    monitor.obey("log exec,nochain")?;
    let filled = wait_for_bytes(&log, LOG_BYTES);
    monitor.obey("log none")?;
    monitor.obey("singlestep off")?;
    filled?;
    lab.run(stop)?;
    let symbols = Symbols::of(lab)?;
    let packets = packets(&log, symbols.address(FUNCTION_OF_EVERY_PACKET)?)?;
    std::fs::remove_file(&log)?;
    report(&undisturbed(packets), &symbols)
}

/// QEMU's monitor for people.
struct Monitor(UnixStream);

impl Monitor {
    fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("QEMU's monitor")?;
        stream.set_read_timeout(Some(LOG_TIMEOUT))?;
        let mut monitor = Self(stream);
        monitor.prompt()?;
        Ok(monitor)
    }

    fn obey(&mut self, command: &str) -> anyhow::Result<()> {
        self.0.write_all(format!("{command}\n").as_bytes())?;
        self.prompt().with_context(|| command.to_owned())
    }

    /// Reads until QEMU asks for the next command.
    fn prompt(&mut self) -> anyhow::Result<()> {
        let mut said = Vec::new();
        let mut byte = [0];
        while !said.ends_with(b"(qemu) ") {
            self.0.read_exact(&mut byte)?;
            said.extend(byte);
        }
        Ok(())
    }
}

fn wait_for_bytes(log: &Path, bytes: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOG_TIMEOUT;
    while std::fs::metadata(log).map_or(0, |found| found.len()) < bytes {
        ensure!(
            Instant::now() < deadline,
            "QEMU wrote less than {bytes} bytes in {LOG_TIMEOUT:?}"
        );
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The kernel's addresses of each packet, from lines like
/// `Trace 0: 0x7f00 [00000000/ffffffff81000000/0000/00] name`; what is before the first packet and after
/// the last begun is left out.
fn packets(log: &Path, every: u64) -> anyhow::Result<Vec<Vec<u64>>> {
    let mut packets = Vec::new();
    let mut passes = 0;
    let mut lines = BufReader::new(std::fs::File::open(log)?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if let Some(address) = executed(&line) {
            if address == every {
                passes += 1;
                if passes % PASSES_OF_A_PACKET == 1 {
                    packets.push(Vec::new());
                }
            }
            if let Some(packet) = packets.last_mut() {
                packet.push(address);
            }
        }
        line.clear();
    }
    packets.pop();
    Ok(packets)
}

/// Leaves out packets during which the guest did something else as well: a tick, another process.
fn undisturbed(mut packets: Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let mut lengths: Vec<usize> = packets.iter().map(Vec::len).collect();
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    packets.retain(|packet| packet.len() <= median + median / DISTURBED_PART);
    packets
}

fn executed(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Trace ")?;
    let address = rest.split_once('[')?.1.split('/').nth(1)?;
    let address = u64::from_str_radix(address, 16).ok()?;
    (address >= KERNEL_ADDRESS_MIN).then_some(address)
}

/// The guest's functions by address.
struct Symbols {
    functions: BTreeMap<u64, String>,
    module_text: Option<u64>,
}

impl Symbols {
    /// Asks the guest, in parts, for an answer has its limit.
    fn of(lab: &Lab) -> anyhow::Result<Self> {
        const LINES: usize = 50_000;
        let mut functions = BTreeMap::new();
        for part in 0.. {
            let first = part * LINES + 1;
            let text = lab.run(&format!(
                "sed -n '{first},{}p' /proc/kallsyms",
                first + LINES - 1
            ))?;
            if text.is_empty() {
                break;
            }
            functions.extend(text.lines().filter_map(symbol));
        }
        let text = lab.run(&format!(
            "cat /sys/module/{MODULE}/sections/.text 2>/dev/null || true"
        ))?;
        let module_text = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
        Ok(Self {
            functions,
            module_text,
        })
    }

    fn function(&self, address: u64) -> &str {
        let found = self.functions.range(..=address).next_back();
        found.map_or("?", |(_, name)| name)
    }

    fn address(&self, function: &str) -> anyhow::Result<u64> {
        let found = self
            .functions
            .iter()
            .find(|(_, name)| name.split('\t').next() == Some(function));
        found
            .map(|(address, _)| *address)
            .with_context(|| format!("the guest has no function {function}"))
    }
}

/// `ffffffff81000000 t name [module]`, if it is a function's.
fn symbol(line: &str) -> Option<(u64, String)> {
    let mut words = line.splitn(3, ' ');
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W")
        .then(|| words.next().map(|name| (address, name.to_owned())))?
}

fn report(packets: &[Vec<u64>], symbols: &Symbols) -> anyhow::Result<String> {
    ensure!(
        !packets.is_empty(),
        "no packet passed while the addresses were written down"
    );
    let mut counts = Counts::new();
    for address in packets.iter().flatten() {
        *counts.entry(*address).or_default() += 1;
    }
    let packets = packets.len() as f64;
    let mut functions: HashMap<&str, u64> = HashMap::new();
    for (&address, &count) in &counts {
        *functions.entry(symbols.function(address)).or_default() += count;
    }
    let mut text = String::new();
    let total = counts.values().sum::<u64>() as f64 / packets;
    writeln!(
        text,
        "{packets:.0} packets, {total:.0} instructions each, by function:"
    )?;
    let names = functions
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count as f64 / packets));
    push_sorted(&mut text, names.collect())?;
    if let Some(lines) = module_lines(&counts, symbols, packets)? {
        writeln!(
            text,
            "\nthe module's own, by source line (innermost inlined function first):"
        )?;
        push_sorted(&mut text, lines)?;
    }
    demangled(text)
}

fn push_sorted(text: &mut String, mut lines: Vec<(String, f64)>) -> anyhow::Result<()> {
    lines.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, each) in lines {
        if each >= INSTRUCTIONS_SHOWN_MIN {
            writeln!(text, "{each:>9.1}  {name}")?;
        }
    }
    Ok(())
}

/// The module's instructions by line, with the functions that were inlined there; addr2line reads the
/// debugging information of the module's file.
fn module_lines(
    counts: &Counts,
    symbols: &Symbols,
    packets: f64,
) -> anyhow::Result<Option<Vec<(String, f64)>>> {
    let Some(base) = symbols.module_text else {
        return Ok(None);
    };
    let in_module = |address: &u64| symbols.function(*address).ends_with(&format!("[{MODULE}]"));
    let addresses: Vec<u64> = counts.keys().copied().filter(in_module).collect();
    let module = cssns::paths::checkout_file(cssns::director::MODULE_FILE).context("no module")?;
    let asked: String = addresses.iter().fold(String::new(), |mut asked, address| {
        let _ = writeln!(asked, "{:#x}", address.wrapping_sub(base));
        asked
    });
    let answer = filter(
        Command::new("addr2line")
            .args(["-a", "-i", "-f", "-s", "-j", ".text", "-e"])
            .arg(&module),
        &asked,
    )?;
    let mut lines: HashMap<String, u64> = HashMap::new();
    // Each answer begins with its address; then come pairs of a function's name and a line.
    for (place, address) in places(&answer).into_iter().zip(&addresses) {
        *lines.entry(place).or_default() += counts.get(address).copied().unwrap_or(0);
    }
    let each = |(place, count)| (place, count as f64 / packets);
    Ok(Some(lines.into_iter().map(each).collect()))
}

/// What addr2line says of each address, in a line: `function file:line < function file:line`.
fn places(answer: &str) -> Vec<String> {
    let mut places: Vec<Vec<&str>> = Vec::new();
    for line in answer.lines() {
        if line.starts_with("0x") {
            places.push(Vec::new());
        } else if let Some(place) = places.last_mut() {
            place.push(line);
        }
    }
    let one = |place: Vec<&str>| {
        let frames: Vec<String> = place.chunks(2).map(|frame| frame.join(" ")).collect();
        frames.join(" < ")
    };
    places.into_iter().map(one).collect()
}

/// Names as programmers write them, if binutils are there.
fn demangled(text: String) -> anyhow::Result<String> {
    if cssns::paths::on_path("c++filt").is_none() {
        return Ok(text);
    }
    filter(&mut Command::new("c++filt"), &text)
}

fn filter(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let program: PathBuf = command.get_program().into();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    std::thread::scope(|scope| {
        // Both ends at once, for neither pipe holds everything.
        let writing = scope.spawn(move || pipe.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        writing.join().ok().context("writing to the program")??;
        ensure!(
            output.status.success(),
            "{}: {}",
            program.display(),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_kernel_are_taken_from_trace_lines() {
        let line = "Trace 0: 0x7f0a8c000100 [00000000/ffffffff81c00010/0000c0b0/ff000001] memcpy\n";
        assert_eq!(executed(line), Some(0xffff_ffff_81c0_0010));
        assert_eq!(
            executed("Trace 0: 0x7f [0000/0000000000401000/00/00] \n"),
            None
        );
        assert_eq!(
            executed("Stopped execution of TB chain before 0x7f [0/ffffffff81c00010] \n"),
            None
        );
    }

    #[test]
    fn disturbed_packets_are_left_out() {
        let packets = vec![
            vec![1; 10],
            vec![1; 12],
            vec![1; 13],
            vec![1; 9],
            vec![1; 10],
        ];
        let lengths: Vec<usize> = undisturbed(packets).iter().map(Vec::len).collect();
        assert_eq!(lengths, [10, 12, 9, 10]);
    }

    #[test]
    fn only_functions_are_symbols() {
        assert_eq!(
            symbol("ffffffff81000000 T start"),
            Some((0xffff_ffff_8100_0000, "start".into()))
        );
        assert_eq!(symbol("ffffffff81000000 d data"), None);
    }

    #[test]
    fn frames_of_an_address_are_one_line() {
        let answer = "0x0010\ninner\na.rs:1\nouter\nb.rs:2\n0x0014\nouter\nb.rs:3\n";
        assert_eq!(
            places(answer),
            ["inner a.rs:1 < outer b.rs:2", "outer b.rs:3"]
        );
    }
}
