// SPDX-License-Identifier: MIT
//! Builds the guest's initramfs: busybox, kernel modules, programs and their shared libraries.
//!
//! Modules are stored unpacked, because the guest's processor is emulated and the host's is not.

use super::VmError;
use super::env::KmodEnv;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Process 1 of the guest.
const INIT: &str = include_str!("init.sh");

/// Modules of the stock kernel that the guest can insert; what they depend on comes along. A name
/// without a file is built into the kernel.
const STOCK_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "veth",
    "dummy",
    "bridge",
    "tun",
    "pktgen",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_sh",
    "nf_conntrack",
    "sch_ingress",
    "sch_tbf",
    "cls_matchall",
    "cls_u32",
    "act_mirred",
    "act_gact",
];

/// Programs without which a guest is of no use; they come from the Debian root.
const PROGRAMS_NEEDED: &[&str] = &["ip", "ipvsadm"];

/// Programs that come along when the Debian root has them.
const PROGRAMS_WELCOME: &[&str] = &[
    "tc",
    "ss",
    "bridge",
    "nstat",
    "tcpdump",
    "curl",
    "nc.openbsd",
    "ethtool",
    "genl",
    "perf",
    "timeout",
    "xargs",
    "env",
];

/// The guest's shell, from the Debian root: busybox's own prefers its applets to the programs
/// above (its `ip` to the real one).
const SHELL: &str = "dash";

/// Files that programs read, taken from the Debian root when there.
const DATA_FILES: &[&str] = &["etc/protocols", "etc/services", "etc/ethertypes"];

/// A file of the host that is put into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Absolute path in the guest.
    pub guest_path: PathBuf,
}

impl std::str::FromStr for Addition {
    type Err = String;

    /// Understands `FILE:GUESTPATH`; the guest path is absolute.
    fn from_str(text: &str) -> Result<Self, String> {
        let (source, guest) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("{text}: expected FILE:GUESTPATH"))?;
        let guest_path = PathBuf::from(guest);
        if source.is_empty() || !guest_path.is_absolute() {
            return Err(format!(
                "{text}: expected FILE:GUESTPATH with an absolute guest path"
            ));
        }
        Ok(Self {
            source: source.into(),
            guest_path,
        })
    }
}

/// Writes the archive to `archive`, using `stage` (which must not exist yet) as its tree.
///
/// # Errors
/// Names the file or the command that failed.
pub fn build(
    env: &KmodEnv,
    module: Option<&Path>,
    additions: &[Addition],
    stage: &Path,
    archive: &Path,
) -> Result<(), VmError> {
    let tree = Stage {
        root: stage.to_path_buf(),
        env,
    };
    tree.base()?;
    tree.modules(module)?;
    tree.programs()?;
    for addition in additions {
        tree.add_with_libraries(&addition.source, &addition.guest_path)?;
    }
    tree.pack(archive)?;
    fs::remove_dir_all(stage).map_err(|e| VmError::file(stage, &e))
}

struct Stage<'a> {
    root: PathBuf,
    env: &'a KmodEnv,
}

impl Stage<'_> {
    fn base(&self) -> Result<(), VmError> {
        for dir in [
            "bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "usr/bin",
        ] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).map_err(|e| VmError::file(&dir, &e))?;
        }
        let busybox = crate::paths::on_path("busybox").ok_or_else(|| {
            VmError::MissingProgram("busybox".to_owned(), "apt-get install busybox-static")
        })?;
        self.copy(&busybox, Path::new("/bin/busybox"))?;
        // The kernel starts /sbin/modprobe itself to load a netlink family that somebody asks for.
        let modprobe = self.root.join("sbin/modprobe");
        std::os::unix::fs::symlink("/bin/busybox", &modprobe)
            .map_err(|e| VmError::file(&modprobe, &e))?;
        let init = self.root.join("init");
        fs::write(&init, INIT).map_err(|e| VmError::file(&init, &e))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .map_err(|e| VmError::file(&init, &e))?;
        for file in DATA_FILES {
            let source = self.env.trixie_root.join(file);
            if source.is_file() {
                self.copy(&source, &Path::new("/").join(file))?;
            }
        }
        Ok(())
    }

    fn modules(&self, module: Option<&Path>) -> Result<(), VmError> {
        let dir = format!("/lib/modules/{}", self.env.kver);
        for (name, file) in module_closure(&self.env.modules_dir, STOCK_MODULES)? {
            self.unpack_module(&file, Path::new(&format!("{dir}/kernel/{name}.ko")))?;
        }
        if let Some(module) = module {
            let name = module.file_name().unwrap_or(module.as_os_str());
            self.copy(module, &Path::new(&dir).join("updates").join(name))?;
        }
        let mut depmod = command("depmod", "kmod")?;
        // depmod warns about lists that only a whole kernel package has; its status is what counts.
        depmod
            .arg("-b")
            .arg(&self.root)
            .arg(&self.env.kver)
            .stderr(Stdio::null());
        run(depmod, "depmod").map(drop)
    }

    fn unpack_module(&self, file: &Path, guest_path: &Path) -> Result<(), VmError> {
        let unpacker = match file.extension().and_then(|e| e.to_str()) {
            Some("xz") => command("xz", "xz-utils")?,
            Some("zst") => command("zstd", "zstd")?,
            Some("gz") => command("gzip", "gzip")?,
            _ => return self.copy(file, guest_path),
        };
        let mut unpacker = unpacker;
        unpacker.arg("-dc").arg(file);
        let bytes = run(unpacker, &format!("unpacking {}", file.display()))?;
        let target = self.target(guest_path)?;
        fs::write(&target, bytes).map_err(|e| VmError::file(&target, &e))
    }

    fn programs(&self) -> Result<(), VmError> {
        self.add_with_libraries(&self.needed_program(SHELL)?, Path::new("/bin/sh"))?;
        for name in PROGRAMS_NEEDED {
            let source = self.needed_program(name)?;
            self.add_with_libraries(&source, &Path::new("/usr/sbin").join(name))?;
        }
        for name in PROGRAMS_WELCOME {
            if let Some(source) = self.root_program(name) {
                self.add_with_libraries(&source, &Path::new("/usr/sbin").join(name))?;
            }
        }
        Ok(())
    }

    fn needed_program(&self, name: &str) -> Result<PathBuf, VmError> {
        self.root_program(name).ok_or_else(|| {
            VmError::NoKernel(format!(
                "{} has no {name}: add its package to scripts/kmod-env.sh",
                self.env.trixie_root.display()
            ))
        })
    }

    fn root_program(&self, name: &str) -> Option<PathBuf> {
        ["usr/sbin", "usr/bin", "sbin", "bin"]
            .iter()
            .map(|dir| self.env.trixie_root.join(dir).join(name))
            .find(|path| path.is_file())
    }

    /// Puts a file into the guest, and when it is a dynamic program what it is linked with: from the
    /// Debian root, whose C library is the newest, else from the host.
    fn add_with_libraries(&self, source: &Path, guest_path: &Path) -> Result<(), VmError> {
        self.copy(source, guest_path)?;
        if !is_dynamic_program(source)? {
            return Ok(());
        }
        for library in self.libraries(source)? {
            let name = library.file_name().unwrap_or(library.as_os_str());
            let is_loader = name.to_string_lossy().starts_with("ld-linux");
            let dir = if is_loader {
                "/lib64"
            } else {
                "/usr/lib/x86_64-linux-gnu"
            };
            let guest_path = Path::new(dir).join(name);
            if !self
                .root
                .join(dir.trim_start_matches('/'))
                .join(name)
                .exists()
            {
                self.copy(&library, &guest_path)?;
            }
        }
        Ok(())
    }

    fn libraries(&self, program: &Path) -> Result<Vec<PathBuf>, VmError> {
        let root = &self.env.trixie_root;
        let mut loader = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
        let search = format!(
            "{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu",
            root.display()
        );
        loader
            .arg("--library-path")
            .arg(search)
            .arg("--list")
            .arg(program);
        let listing = run(
            loader,
            &format!("listing the libraries of {}", program.display()),
        )?;
        Ok(parse_library_list(&String::from_utf8_lossy(&listing)))
    }

    fn copy(&self, source: &Path, guest_path: &Path) -> Result<(), VmError> {
        let target = self.target(guest_path)?;
        fs::copy(source, &target)
            .map(drop)
            .map_err(|e| VmError::file(source, &e))
    }

    /// Where `guest_path` stands in the tree; makes the directories above it.
    fn target(&self, guest_path: &Path) -> Result<PathBuf, VmError> {
        let target = self
            .root
            .join(guest_path.strip_prefix("/").unwrap_or(guest_path));
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).map_err(|e| VmError::file(dir, &e))?;
        }
        Ok(target)
    }

    fn pack(&self, archive: &Path) -> Result<(), VmError> {
        command("cpio", "cpio")?;
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                "cd \"$1\" && find . -print0 | cpio -0 -o -H newc --quiet -R 0:0 >\"$2\"",
                "sh",
            ])
            .arg(&self.root)
            .arg(archive);
        run(shell, "packing the initramfs").map(drop)
    }
}

/// The files of `names` and of all modules that they depend on, by name. Names without a file are
/// left out: they are built into the kernel, or unknown to this version.
fn module_closure(dir: &Path, names: &[&str]) -> Result<HashMap<String, PathBuf>, VmError> {
    let mut index = HashMap::new();
    index_modules(dir, &mut index)?;
    let mut found: HashMap<String, PathBuf> = HashMap::new();
    let mut wanted: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    while !wanted.is_empty() {
        let files: Vec<(String, PathBuf)> = std::mem::take(&mut wanted)
            .into_iter()
            .filter(|name| !found.contains_key(name))
            .filter_map(|name| index.get(&name).map(|file| (name, file.clone())))
            .collect();
        if files.is_empty() {
            break;
        }
        let mut modinfo = command("modinfo", "kmod")?;
        modinfo
            .args(["-F", "depends"])
            .args(files.iter().map(|(_, file)| file));
        let depends = run(modinfo, "modinfo")?;
        wanted.extend(parse_depends(&String::from_utf8_lossy(&depends)));
        found.extend(files);
    }
    Ok(found)
}

fn index_modules(dir: &Path, index: &mut HashMap<String, PathBuf>) -> Result<(), VmError> {
    for entry in fs::read_dir(dir).map_err(|e| VmError::file(dir, &e))? {
        let entry = entry.map_err(|e| VmError::file(dir, &e))?;
        let kind = entry.file_type().map_err(|e| VmError::file(dir, &e))?;
        if kind.is_dir() {
            index_modules(&entry.path(), index)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            index.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The module's name from its file's name: `nf-foo.ko.xz` is `nf_foo`.
fn module_name(file_name: &str) -> Option<String> {
    let (stem, packing) = file_name.split_once(".ko")?;
    matches!(packing, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

/// Names in the output of `modinfo -F depends FILE...`: a comma-separated line per file.
fn parse_depends(listing: &str) -> impl Iterator<Item = String> {
    listing
        .split([',', '\n'])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|n| n.replace('-', "_"))
}

/// Paths in the output of `ld.so --list`: `libc.so.6 => /path (0x...)` or `/path (0x...)`.
fn parse_library_list(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| {
            let path = line
                .rsplit_once("=> ")
                .map_or(line, |(_, path)| path)
                .trim();
            let path = path.split_once(" (").map_or(path, |(path, _)| path);
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// Whether the file is an ELF program or library with an interpreter or dynamic section; decided by
/// the magic and the type field (ELF header, offset 16: 2 executable, 3 shared or PIE).
fn is_dynamic_program(path: &Path) -> Result<bool, VmError> {
    use std::io::Read as _;
    let mut head = Vec::new();
    let file = fs::File::open(path).map_err(|e| VmError::file(path, &e))?;
    file.take(1 << 20)
        .read_to_end(&mut head)
        .map_err(|e| VmError::file(path, &e))?;
    let elf = head.starts_with(b"\x7fELF") && matches!(head.get(16), Some(2 | 3));
    // A static program has no interpreter; the interpreter's path stands near the file's start.
    Ok(elf && head.windows(14).any(|window| window == b"/ld-linux-x86-"))
}

fn command(name: &str, package: &'static str) -> Result<Command, VmError> {
    let path = crate::paths::on_path(name)
        .ok_or_else(|| VmError::MissingProgram(name.to_owned(), package))?;
    Ok(Command::new(path))
}

fn run(mut command: Command, what: &str) -> Result<Vec<u8>, VmError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| VmError::Build(format!("{what}: {e}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(VmError::Build(format!(
            "{what}: {}: {}",
            output.status,
            stderr.trim()
        )));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_are_file_and_guest_path() {
        let addition: Addition = "a/b:c:/usr/bin/x".parse().unwrap();
        assert_eq!(addition.source, PathBuf::from("a/b:c"));
        assert_eq!(addition.guest_path, PathBuf::from("/usr/bin/x"));
        for bad in ["", "file", ":/x", "file:relative"] {
            assert!(bad.parse::<Addition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn module_names_come_from_file_names() {
        assert_eq!(module_name("ip_vs.ko.xz").as_deref(), Some("ip_vs"));
        assert_eq!(module_name("virtio-rng.ko").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("modules.dep"), None);
        assert_eq!(module_name("a.korean"), None);
    }

    #[test]
    fn dependencies_are_comma_lists() {
        let names: Vec<String> = parse_depends("ip_vs,nf-conntrack\n\nlibcrc32c\n").collect();
        assert_eq!(names, ["ip_vs", "nf_conntrack", "libcrc32c"]);
    }

    #[test]
    fn library_lists_are_paths() {
        let listing = "\tlinux-vdso.so.1 (0x00007f)\n\
                       \tlibnl-3.so.200 => /r/usr/lib/libnl-3.so.200 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 => /r/lib64/ld-linux-x86-64.so.2 (0x0)\n\
                       \t/lib/direct.so (0x0)\n\
                       \tlibgone.so => not found\n";
        let expected: Vec<PathBuf> = [
            "/r/usr/lib/libnl-3.so.200",
            "/r/lib64/ld-linux-x86-64.so.2",
            "/lib/direct.so",
        ]
        .iter()
        .map(PathBuf::from)
        .collect();
        assert_eq!(parse_library_list(listing), expected);
    }
}
