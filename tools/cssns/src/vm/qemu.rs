// SPDX-License-Identifier: MIT
//! The QEMU command line of a guest, as a pure function of what is wanted.

use std::path::Path;

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceleration {
    /// Emulated: works everywhere.
    #[default]
    Tcg,
    /// By the host's processor; needs a usable `/dev/kvm`.
    Kvm,
}

impl std::str::FromStr for Acceleration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "tcg" => Ok(Self::Tcg),
            "kvm" => Ok(Self::Kvm),
            other => Err(format!("ACCEL={other}: expected tcg or kvm")),
        }
    }
}

/// A tap device that the guest's `eth0` is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// Network namespace that the device is in; QEMU runs inside it.
    pub netns: String,
    /// The device's name there.
    pub device: String,
    /// The guest's hardware address.
    pub mac: String,
}

/// What the command line is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// How instructions are executed.
    pub acceleration: Acceleration,
    /// Memory of the guest, MiB.
    pub memory_mib: u32,
    /// Processors of the guest.
    pub cpus: u32,
    /// Kernel image.
    pub kernel: &'a Path,
    /// Initramfs archive.
    pub initramfs: &'a Path,
    /// Appended to the kernel's command line.
    pub kernel_arguments: &'a str,
    /// File that receives the serial console.
    pub console_log: &'a Path,
    /// Socket of the control port.
    pub control_socket: &'a Path,
    /// Network, if any.
    pub tap: Option<&'a Tap>,
    /// Appended as they are, for experiments (`-icount shift=0,sleep=off`).
    pub extra: &'a [String],
}

/// The guest ends (and QEMU with it) at a panic, so that a dead guest is noticed at once. Its
/// detectors of stalls and lockups are patient: they measure the host's time, of which an emulated
/// processor on a busy machine may get none for many seconds.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 rcupdate.rcu_cpu_stall_suppress_at_boot=1 \
    rcupdate.rcu_cpu_stall_timeout=60 watchdog_thresh=60";

/// Arguments for `qemu-system-x86_64`.
#[must_use]
pub fn arguments(machine: &Machine<'_>) -> Vec<String> {
    let accel = match machine.acceleration {
        // With a thread for each processor TCG breaks the kernel's patching of its own code, as it
        // does when netfilter's first hook comes or the last one goes ("Oops: int3").
        Acceleration::Tcg => ["-accel", "tcg,thread=single", "-cpu", "max"],
        Acceleration::Kvm => ["-accel", "kvm", "-cpu", "host"],
    };
    let mut args: Vec<String> = accel.iter().map(|&a| a.to_owned()).collect();
    let mut add = |parts: &[&str]| args.extend(parts.iter().map(|&p| p.to_owned()));
    add(&[
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    add(&[
        "-m",
        &format!("{}M", machine.memory_mib),
        "-smp",
        &machine.cpus.to_string(),
    ]);
    add(&["-kernel", &machine.kernel.display().to_string()]);
    add(&["-initrd", &machine.initramfs.display().to_string()]);
    add(&[
        "-append",
        format!("{KERNEL_ARGUMENTS} {}", machine.kernel_arguments).trim_end(),
    ]);
    add(&[
        "-serial",
        &format!("file:{}", option_value(machine.console_log)),
    ]);
    add(&["-device", "virtio-serial-pci", "-chardev"]);
    add(&[&format!(
        "socket,id=control,path={},server=on,wait=off",
        option_value(machine.control_socket)
    )]);
    add(&[
        "-device",
        "virtserialport,chardev=control,name=cssns.control",
    ]);
    if let Some(tap) = machine.tap {
        add(&[
            "-netdev",
            &format!("tap,id=lan,ifname={},script=no,downscript=no", tap.device),
        ]);
        add(&[
            "-device",
            &format!("virtio-net-pci,netdev=lan,mac={},romfile=", tap.mac),
        ]);
    }
    args.extend(machine.extra.iter().cloned());
    args
}

/// Arguments for a second network device of the guest, on a tap in the namespace of the first.
#[must_use]
pub fn second_link(device: &str, mac: &str) -> Vec<String> {
    [
        "-netdev",
        &format!("tap,id=second,ifname={device},script=no,downscript=no"),
        "-device",
        &format!("virtio-net-pci,netdev=second,mac={mac},romfile="),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A path inside a QEMU option list: a comma is written twice.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine<'a>(tap: Option<&'a Tap>, extra: &'a [String]) -> Machine<'a> {
        Machine {
            acceleration: Acceleration::Tcg,
            memory_mib: 512,
            cpus: 1,
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            kernel_arguments: "",
            console_log: Path::new("/log,1"),
            control_socket: Path::new("/s"),
            tap,
            extra,
        }
    }

    #[test]
    fn without_a_tap_the_guest_has_no_network() {
        let args = arguments(&machine(None, &[]));
        assert!(!args.iter().any(|a| a.contains("netdev")));
        assert!(args.contains(&"file:/log,,1".to_owned()));
        assert!(args.contains(&KERNEL_ARGUMENTS.to_owned()));
    }

    #[test]
    fn a_tap_is_named_and_extras_come_last() {
        let tap = Tap {
            netns: "sw".into(),
            device: "dir0".into(),
            mac: "02:00:00:00:00:01".into(),
        };
        let args = arguments(&machine(
            Some(&tap),
            &["-icount".to_owned(), "shift=0".to_owned()],
        ));
        assert!(args.iter().any(|a| a.contains("ifname=dir0,script=no")));
        assert!(args.iter().any(|a| a.contains("mac=02:00:00:00:00:01")));
        assert_eq!(args.last().map(String::as_str), Some("shift=0"));
    }

    #[test]
    fn accelerations_are_named() {
        assert_eq!("kvm".parse(), Ok(Acceleration::Kvm));
        assert_eq!("".parse(), Ok(Acceleration::Tcg));
        assert!("xen".parse::<Acceleration>().is_err());
    }
}
