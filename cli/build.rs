//! Links the released kctl tighter, where this machine's linker and loader can: equal functions once, relocations as bitmaps.
//!
//! What can be done is found out by doing it: a program of one line is linked that way and run.

use std::path::PathBuf;
use std::process::Command;

const TIGHTER: &[&str] = &["-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // What is linked for another machine cannot be tried here.
    if variable("PROFILE") != "release" || variable("HOST") != variable("TARGET") {
        return;
    }
    let directory = PathBuf::from(variable("OUT_DIR"));
    for argument in TIGHTER {
        if works(&variable("RUSTC"), &directory, argument) {
            println!("cargo:rustc-link-arg-bin=kctl={argument}");
        }
    }
}

fn works(rustc: &str, directory: &std::path::Path, argument: &str) -> bool {
    let (source, program) = (directory.join("probe.rs"), directory.join("probe"));
    if std::fs::write(&source, "fn main() {}\n").is_err() {
        return false;
    }
    let mut link = Command::new(rustc);
    link.arg(&source).arg("-o").arg(&program).args(["-C", &format!("link-arg={argument}")]);
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    succeeds(&mut link) && succeeds(&mut Command::new(&program))
}
