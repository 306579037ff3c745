// SPDX-License-Identifier: MIT
//! The demo: a cluster, files stored through one node, many clients downloading through the VIP.

use crate::cluster::{Cluster, Options};
use crate::learning;
use crate::loads::Load;
use crate::plan::Node;
use crate::progress::Steps;
use crate::report::{DemoResult, NodeResult};
use crate::web;
use crate::workload::{self, Downloads, Progress, StoredFile};
use anyhow::Context as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time that the loads are looked at; all downloads together end long before.
const SAMPLING_LIMIT: Duration = Duration::from_secs(3600);

/// How long counters may take to show what happened.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a progress bar moves.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// What is stored and how it is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// How many files.
    pub files: usize,
    /// The smallest file, bytes.
    pub bytes_min: u64,
    /// The largest file, bytes.
    pub bytes_max: u64,
    /// How many clients download at a time.
    pub clients: usize,
    /// How many files each client downloads, one after another.
    pub per_client: usize,
}

/// The demo's work: 12 files of 10 to 50 MB, 30 clients.
pub const FULL: Workload = Workload {
    files: 12,
    bytes_min: 10_000_000,
    bytes_max: 50_000_000,
    clients: 30,
    per_client: 4,
};

/// The work of the demo's small form, which is a test.
pub const SMALL: Workload = Workload {
    files: 4,
    bytes_min: 2_000_000,
    bytes_max: 8_000_000,
    clients: 8,
    per_client: 2,
};

/// Brings a cluster up and lets it do the work.
///
/// # Errors
/// Says which part failed and where its log is; everything is taken apart then.
pub fn run(
    options: &Options,
    work: &Workload,
    steps: &Steps,
) -> anyhow::Result<(Cluster, DemoResult)> {
    let cluster = Cluster::up(options, steps)?;
    let files = store(&cluster, work, steps).context("storing the files")?;
    let result = download(&cluster, work, &files, steps).context("downloading the files")?;
    Ok((cluster, result))
}

fn store(cluster: &Cluster, work: &Workload, steps: &Steps) -> anyhow::Result<Vec<StoredFile>> {
    let files = workload::plan_files(work.files, work.bytes_min, work.bytes_max);
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let name = format!(
        "{} files, {}, stored through {}",
        files.len(),
        crate::report::human_bytes(total),
        Node::FIRST
    );
    let bar = steps.bytes(&name, total);
    let written = AtomicU64::new(0);
    let dir = cluster.mount_point(Node::FIRST);
    let stored = AtomicBool::new(false);
    steps.step(&name, || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                follow(&stored, || {
                    bar.set_position(written.load(Ordering::Relaxed))
                })
            });
            let result = files
                .iter()
                .map(|file| workload::store(&dir, file, &written))
                .collect();
            stored.store(true, Ordering::Relaxed);
            result
        })
    })
}

fn download(
    cluster: &Cluster,
    work: &Workload,
    files: &[StoredFile],
    steps: &Steps,
) -> anyhow::Result<DemoResult> {
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let average = total / u64::try_from(files.len().max(1))?;
    cluster
        .director()
        .expect_size(cluster.specification().code, average)?;
    if cluster.specification().learns {
        steps.step("mwlcd: sizes are learned from requests", || {
            learning::start(cluster)
        })?;
    }
    let before = cluster.director().counters()?;
    let client = cluster.run().ledger().plan().client_namespace();
    let progress = Progress::default();
    let name = format!(
        "{} downloads by {} clients",
        work.clients * work.per_client,
        work.clients
    );
    let average: u64 =
        files.iter().map(|f| f.bytes).sum::<u64>() / u64::try_from(files.len().max(1))?;
    let bar = steps.bytes(
        &name,
        average.saturating_mul(u64::try_from(work.clients * work.per_client)?),
    );
    let ended = AtomicBool::new(false);
    let stop = format!("/run/cssns-stop-{}", cluster.run().ledger().plan().run_id());
    let (downloads, samples) = steps.step(&name, || {
        std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let code = cluster.specification().code;
                cluster.director().sample_loads(code, &stop, SAMPLING_LIMIT)
            });
            scope.spawn(|| {
                follow(&ended, || {
                    bar.set_position(progress.bytes.load(Ordering::Relaxed))
                })
            });
            let downloads = workload::download_all(
                cluster.run().launcher(),
                &client,
                files,
                work.clients,
                work.per_client,
                &progress,
            );
            ended.store(true, Ordering::Relaxed);
            cluster.director().stop_sampling(&stop)?;
            let samples = sampler
                .join()
                .map_err(|_| anyhow::anyhow!("the sampler died"))?;
            Ok((downloads?, samples?))
        })
    })?;
    bar.finish_and_clear();
    let mut result = gather(cluster, work, &downloads, &before, &samples)?;
    if cluster.specification().learns {
        let sizes: Vec<u64> = files.iter().map(|file| file.bytes).collect();
        result.learned = Some(learning::look(cluster, &sizes)?);
    }
    Ok(result)
}

/// Calls `look` until `ended`.
fn follow(ended: &AtomicBool, look: impl Fn()) {
    while !ended.load(Ordering::Relaxed) {
        look();
        std::thread::sleep(BAR_INTERVAL);
    }
}

/// The counters once they show all connections. Stock `ip_vs` shows what its estimator last added up,
/// every two seconds; what it has not shown by the deadline is reported as it is.
fn settled_counters(
    cluster: &Cluster,
    before: &Counted,
    downloads: &Downloads,
) -> anyhow::Result<Counted> {
    let connections = |service: &Counted| service.counters().map_or(0, |c| c.connections);
    let deadline = Instant::now() + COUNTERS_TIMEOUT;
    loop {
        let after = cluster.director().counters()?;
        let seen = connections(&after).saturating_sub(connections(before));
        if usize::try_from(seen).is_ok_and(|seen| seen >= downloads.count)
            || Instant::now() > deadline
        {
            return Ok(after);
        }
        std::thread::sleep(BAR_INTERVAL);
    }
}

type Counted = crate::ipvs_text::Service<crate::ipvs_text::Counters>;

fn gather(
    cluster: &Cluster,
    work: &Workload,
    downloads: &Downloads,
    before: &Counted,
    samples: &[Vec<Load>],
) -> anyhow::Result<DemoResult> {
    let after = settled_counters(cluster, before, downloads)?;
    let connections = |service: &Counted, node: Node| {
        let of_node = |c: &&crate::ipvs_text::Counters| *c.address.ip() == node.address();
        service
            .destinations
            .iter()
            .find(of_node)
            .map_or(0, |c| c.connections)
    };
    let nodes = cluster.nodes().iter().map(|&node| {
        let of_node = |sample: &Vec<Load>| sample.iter().find(|load| load.node == node).copied();
        Ok(NodeResult {
            node,
            weight: samples
                .iter()
                .rev()
                .find_map(of_node)
                .map_or(0, |load| load.weight),
            connections: connections(&after, node).saturating_sub(connections(before, node)),
            bytes: web::add_up(&cluster.access_log(node)?).bytes,
            loads: samples
                .iter()
                .map(|s| of_node(s).map_or(0, |load| load.load))
                .collect(),
        })
    });
    let total = |service: &Counted| {
        service
            .counters()
            .map_or((0, 0), |c| (c.packets_in, c.bytes_in))
    };
    let (packets_before, bytes_before) = total(before);
    let (packets_after, bytes_after) = total(&after);
    Ok(DemoResult {
        nodes: nodes.collect::<anyhow::Result<_>>()?,
        load_in_bytes: cluster.specification().code == crate::plan::Code::Mwlc,
        downloads: downloads.count,
        clients: work.clients,
        files: work.files,
        bytes: downloads.bytes,
        elapsed: downloads.elapsed,
        director_packets: packets_after.saturating_sub(packets_before),
        director_bytes: bytes_after.saturating_sub(bytes_before),
        learned: None,
    })
}
