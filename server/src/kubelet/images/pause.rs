//! The carried pause image: the process that holds a pod's namespaces, so that a node works with no registry reachable.
//!
//! Owns the machine code (assembled here from the instructions named beside each byte sequence), the ELF file around it and the
//! OCI archive around that. The program, in C:
//!
//! ```c
//! sigset_t set = {SIGINT, SIGTERM, SIGCHLD};
//! sigprocmask(SIG_BLOCK, &set, NULL);           // blocked signals reach even pid 1, which ignores default-action ones
//! for (;;) {
//!     int sig = sigtimedwait(&set, NULL, NULL);
//!     if (sig == SIGCHLD) while (waitpid(-1, NULL, WNOHANG) > 0) {}   // orphans of a shared pid namespace end up here
//!     else if (sig > 0) _exit(0);
//! }
//! ```

use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::runtime::Runtime;
use super::import::{self, ImportError};

/// SIGINT (2), SIGTERM (15) and SIGCHLD (17) as a kernel signal set: bit n-1.
const SIGNALS: u64 = (1 << 1) | (1 << 14) | (1 << 16);
const SIGCHLD: u8 = 17;
/// Address at which the file is mapped.
const BASE: u64 = 0x40_0000;
/// ELF header and one program header.
const HEADERS: u64 = 64 + 56;

/// A processor that nodes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64
    Amd64,
    /// AArch64
    Arm64,
}

impl Arch {
    /// The processor of this build, if pause is known for it.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::Amd64),
            "aarch64" => Some(Arch::Arm64),
            _ => None,
        }
    }
    /// Name in image configurations and node labels.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }
}

/// x86-64 code. System call numbers: rt_sigprocmask 14, rt_sigtimedwait 128, wait4 61, exit 60. The set follows the code.
fn amd64() -> Vec<u8> {
    const BLOCK: &[u8] = &[
        0x31, 0xff, // 00 xor edi, edi          SIG_BLOCK
        0x48, 0x8d, 0x35, 0x48, 0x00, 0x00, 0x00, // 02 lea rsi, [rip+0x48]   set, at 0x51
        0x31, 0xd2, // 09 xor edx, edx          no old set
        0x6a, 0x08, 0x41, 0x5a, // 0b push 8; pop r10          its size
        0x6a, 0x0e, 0x58, // 0f push 14; pop rax
        0x0f, 0x05, // 12 syscall
    ];
    const WAIT: &[u8] = &[
        0x48, 0x8d, 0x3d, 0x36, 0x00, 0x00, 0x00, // 14 wait: lea rdi, [rip+0x36]   set
        0x31, 0xf6, // 1b xor esi, esi          no info
        0x31, 0xd2, // 1d xor edx, edx          no time limit
        0x6a, 0x08, 0x41, 0x5a, // 1f push 8; pop r10
        0xb8, 0x80, 0x00, 0x00, 0x00, // 23 mov eax, 128
        0x0f, 0x05, // 28 syscall
        0x83, 0xf8, SIGCHLD, // 2a cmp eax, SIGCHLD
        0x74, 0x0b, // 2d je reap (3a)
        0x85, 0xc0, // 2f test eax, eax
        0x78, 0xe1, // 31 js wait (14)           interrupted
        0x31, 0xff, // 33 xor edi, edi
        0x6a, 0x3c, 0x58, // 35 push 60; pop rax
        0x0f, 0x05, // 38 syscall               exit(0)
    ];
    const REAP: &[u8] = &[
        0x6a, 0xff, 0x5f, // 3a reap: push -1; pop rdi
        0x31, 0xf6, // 3d xor esi, esi          no status
        0x6a, 0x01, 0x5a, // 3f push 1; pop rdx       WNOHANG
        0x45, 0x31, 0xd2, // 42 xor r10d, r10d        no usage
        0x6a, 0x3d, 0x58, // 45 push 61; pop rax
        0x0f, 0x05, // 48 syscall
        0x85, 0xc0, // 4a test eax, eax
        0x7f, 0xec, // 4c jg reap (3a)
        0xeb, 0xc4, // 4e jmp wait (14)
        0x90, // 50 nop
    ];
    [BLOCK, WAIT, REAP].concat()
}

/// AArch64 code. System call numbers: rt_sigprocmask 135, rt_sigtimedwait 137, wait4 260, exit 93. The set follows the code.
fn arm64() -> Vec<u8> {
    const SVC: u32 = 0xd400_0001;
    // movz xd, #value
    let mov = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    // adr xd, set: the set lies `words` instructions ahead
    let adr = |register: u32, words: u32| 0x1000_0000 | words << 5 | register;
    // subs wzr, w0, #value
    let cmp = |value: u32| 0x7100_001f | value << 10;
    // b.condition, by a signed number of instructions
    let branch = |condition: u32, words: i32| 0x5400_0000 | (words as u32 & 0x7_ffff) << 5 | condition;
    const EQ: u32 = 0;
    const GT: u32 = 12;
    const LT: u32 = 11;
    let program: [u32; 32] = [
        mov(0, 0),                                  // 0  SIG_BLOCK
        adr(1, 31),                                 // 1  set, at word 32
        mov(2, 0),                                  // 2
        mov(3, 8),                                  // 3
        mov(8, 135),                                // 4
        SVC,                                        // 5  rt_sigprocmask
        adr(0, 26),                                 // 6  wait: set
        mov(1, 0),                                  // 7
        mov(2, 0),                                  // 8
        mov(3, 8),                                  // 9
        mov(8, 137),                                // 10
        SVC,                                        // 11 rt_sigtimedwait
        cmp(17),                                    // 12 SIGCHLD?
        branch(EQ, 7),                              // 13 → reap (20)
        cmp(0),                                     // 14
        branch(LT, -9),                             // 15 → wait (6): interrupted
        mov(0, 0),                                  // 16
        mov(8, 93),                                 // 17
        SVC,                                        // 18 exit(0)
        0xd503_201f,                                // 19 nop
        0x9280_0000,                                // 20 reap: movn x0, #0 = -1
        mov(1, 0),                                  // 21
        mov(2, 1),                                  // 22 WNOHANG
        mov(3, 0),                                  // 23
        mov(8, 260),                                // 24
        SVC,                                        // 25 wait4
        cmp(0),                                     // 26
        branch(GT, -7),                             // 27 → reap (20)
        0x1400_0000 | (-22i32 as u32 & 0x3ff_ffff), // 28 b wait (6)
        0xd503_201f,                                // 29 nop, so that the set is aligned
        0xd503_201f,                                // 30
        0xd503_201f,                                // 31
    ];
    program.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The pause program as a static ELF executable.
pub fn executable(arch: Arch) -> Vec<u8> {
    let (machine, mut code): (u16, Vec<u8>) = match arch {
        Arch::Amd64 => (62, amd64()),
        Arch::Arm64 => (183, arm64()),
    };
    code.extend(SIGNALS.to_le_bytes());
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2u16.to_le_bytes()); // ET_EXEC
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes()); // version
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes()); // no section headers
    elf.extend(0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes()); // header size, program header size and count, section header size, count, names
    }
    elf.extend(1u32.to_le_bytes()); // PT_LOAD
    elf.extend(5u32.to_le_bytes()); // read, execute
    for quad in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(quad.to_le_bytes()); // offset, virtual and physical address, file and memory size, alignment
    }
    elf.extend(code);
    elf
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, path, bytes)
}

/// An OCI archive with one image of one layer of the given files (path, mode, contents), which containerd imports under `name`.
pub fn archive(name: &str, arch: Arch, entrypoint: &[&str], files: &[(&str, u32, &[u8])]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        append(&mut layer, path, *mode, bytes)?;
    }
    let layer = layer.into_inner()?;
    let config = serde_json::to_vec(&json!({
        "architecture": arch.name(), "os": "linux",
        "config": { "Entrypoint": entrypoint, "WorkingDir": "/", "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha(&layer))] },
    }))?;
    let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": format!("sha256:{}", sha(bytes)), "size": bytes.len() });
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", &config),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;
    let mut outer = tar::Builder::new(Vec::new());
    append(&mut outer, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut outer, "index.json", 0o644, &index)?;
    for bytes in [&config, &manifest, &layer] {
        append(&mut outer, &format!("blobs/sha256/{}", sha(bytes)), 0o644, bytes)?;
    }
    outer.into_inner()
}

/// Imports the pause image under the given name unless it is there.
pub async fn ensure(runtime: &Runtime, image: &str, scratch: &Path) -> Result<(), ImportError> {
    if matches!(runtime.image_status(image).await, Ok(Some(_))) {
        return Ok(());
    }
    let arch = Arch::host().ok_or_else(|| ImportError::Refused(format!("no pause program for {}", std::env::consts::ARCH)))?;
    let program = executable(arch);
    let bytes = archive(image, arch, &["/pause"], &[("pause", 0o755, &program)]).map_err(ImportError::Archive)?;
    let mut file = tempfile::NamedTempFile::new_in(scratch).map_err(ImportError::Archive)?;
    file.write_all(&bytes).map_err(ImportError::Archive)?;
    import::import(runtime.socket(), file.path()).await?;
    import::wait_until_listed(runtime, image).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn jumps_and_addresses_in_the_code_meet_their_targets() {
        let code = amd64();
        assert_eq!(code.len(), 0x51, "the set follows the code");
        let relative = |at: usize| i32::from_le_bytes(code[at..at + 4].try_into().unwrap());
        assert_eq!(0x09 + relative(0x05), 0x51);
        assert_eq!(0x1b + relative(0x17), 0x51);
        for (end, target) in [(0x2f, 0x3a), (0x33, 0x14), (0x4e, 0x3a), (0x50, 0x14)] {
            assert_eq!(end + i64::from(code[end as usize - 1] as i8), target);
        }
        assert_eq!(arm64().len(), 32 * 4);
    }

    #[test]
    fn pause_waits_and_ends_with_zero_on_sigterm() {
        let Some(arch) = Arch::host() else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, executable(arch)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
            let mut child = std::process::Command::new(&path).spawn().unwrap();
            let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            // A signal that it reaps children on must not end it.
            rustix::process::kill_process(pid, rustix::process::Signal::CHILD).unwrap();
            let asleep = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|s| s.contains("(pause) S"));
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while !asleep() {
                assert!(std::time::Instant::now() < deadline, "pause does not sleep");
                std::thread::yield_now();
            }
            rustix::process::kill_process(pid, signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (Some(0), None));
        }
    }

    #[test]
    fn the_pause_image_is_tiny_and_the_same_every_time() {
        let build = || archive("kserver/pause:1", Arch::Arm64, &["/pause"], &[("pause", 0o755, &executable(Arch::Arm64))]).unwrap();
        assert_eq!(build(), build());
        assert!(executable(Arch::Amd64).len() < 512);
    }
}
