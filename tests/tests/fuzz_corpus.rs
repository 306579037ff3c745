// SPDX-License-Identifier: MIT
//! Every input that fuzzing of PVFS has kept, once more: the targets hold for them, whatever changes.

#![expect(clippy::expect_used, reason = "targets fail as tests do")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn the_targets_hold_for_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::ALL {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // Shown only if the target fails.
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}

#[test]
fn the_targets_hold_for_no_bytes_and_for_equal_ones() {
    for (_, target) in targets::ALL {
        target(&[]);
        for byte in [0, 1, 0x45, 0xff] {
            target(&[byte; 300]);
        }
    }
}
