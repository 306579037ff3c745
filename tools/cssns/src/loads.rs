// SPDX-License-Identifier: MIT
//! The nodes' loads as the director sees them, over time: connections, Ci, Wi. Pure.

use crate::ipvs_text;
use crate::plan::Code;
use crate::plan::Node;
use anyhow::Context as _;
use serde::Deserialize;
use std::net::SocketAddrV4;

/// Pause between two looks, seconds; an emulated director should rather dispatch.
const PAUSE_S: &str = "0.2";

/// What stands before each look in a sampler's output.
const MARK: &str = "@sample";

/// One node's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The node.
    pub node: Node,
    /// Live connections.
    pub connections: u64,
    /// Ci: bytes with our module, connections with stock `ip_vs`, which knows no bytes.
    pub load: u64,
    /// Wi.
    pub weight: u32,
}

/// A shell script that prints the loads again and again until the file `stop` exists.
#[must_use]
pub fn sampling_script(code: Code, stop: &str) -> String {
    let command = match code {
        Code::IpVs => "ipvsadm -L -n --exact",
        Code::Mwlc => MWLCADM_COMMAND,
    };
    format!(
        "until [ -e {stop} ]; do echo {MARK}; {command} || exit; sleep {PAUSE_S}; done
echo {MARK}; {command}
rm -f {stop}"
    )
}

/// The looks in the output of [`sampling_script`], in the order of time.
///
/// # Errors
/// When a look is not understood.
pub fn parse_samples(code: Code, text: &str) -> anyhow::Result<Vec<Vec<Load>>> {
    text.split(MARK)
        .skip(1)
        .map(|look| match code {
            Code::IpVs => Ok(from_ipvsadm(look)),
            Code::Mwlc => from_mwlcadm(look),
        })
        .collect()
}

/// Loads from a listing of stock ipvsadm: Ci is the number of connections.
#[must_use]
pub fn from_ipvsadm(text: &str) -> Vec<Load> {
    ipvs_text::parse_listing(text)
        .into_iter()
        .flat_map(|service| service.destinations)
        .filter_map(|destination| {
            Some(Load {
                node: Node::with_address(*destination.address.ip())?,
                connections: destination.active,
                load: destination.active,
                weight: destination.weight,
            })
        })
        .collect()
}

/// What `mwlcadm` is asked for the loads with.
pub const MWLCADM_COMMAND: &str = "mwlcadm loads --json";

/// A service in `mwlcadm loads --json`; the fields that matter here.
#[derive(Debug, Deserialize)]
struct ServiceLoads {
    real_servers: Vec<RealServerLoad>,
}

/// A real server there.
#[derive(Debug, Deserialize)]
struct RealServerLoad {
    address: SocketAddrV4,
    weight: u32,
    load_bytes: u64,
    active: u64,
}

/// Loads from the output of [`MWLCADM_COMMAND`]: Ci is in bytes.
///
/// # Errors
/// When the text is not of that form.
pub fn from_mwlcadm(text: &str) -> anyhow::Result<Vec<Load>> {
    let services: Vec<ServiceLoads> = serde_json::from_str(text)
        .with_context(|| format!("`{MWLCADM_COMMAND}` is not understood: {text}"))?;
    let servers = services
        .into_iter()
        .flat_map(|service| service.real_servers);
    Ok(servers
        .filter_map(|server| {
            Some(Load {
                node: Node::with_address(*server.address.ip())?,
                connections: server.active,
                load: server.load_bytes,
                weight: server.weight,
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_stock_ip_vs_count_connections() {
        let look = |active: u32| {
            format!(
                "{MARK}\nTCP  198.18.0.100:80 wlc\n  -> 198.18.0.21:80  Route   1      {active}     0\n  \
                   -> 198.18.0.22:80  Route   3      7     0\n"
            )
        };
        let samples = parse_samples(Code::IpVs, &format!("{}{}", look(1), look(2))).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(
            samples[1][0],
            Load {
                node: Node::FIRST,
                connections: 2,
                load: 2,
                weight: 1
            }
        );
        assert_eq!(samples[0][1].weight, 3);
        assert_eq!(
            parse_samples(Code::IpVs, "").unwrap(),
            Vec::<Vec<Load>>::new()
        );
    }

    #[test]
    fn samples_of_our_module_are_in_bytes() {
        let look = r#"
            [{"protocol":"TCP","service":"198.18.0.100:80","scheduler":"mwlc","real_servers":[
              {"address":"198.18.0.21:80","weight":0,"load_bytes":30,"load_per_weight_bytes":null,
               "pending":0,"active":3,"inactive":9},
              {"address":"192.0.2.1:80","weight":1,"load_bytes":1,"active":1}]}]"#;
        let samples = parse_samples(Code::Mwlc, &format!("{MARK}{look}{MARK}\n[]\n")).unwrap();
        let expected = Load {
            node: Node::FIRST,
            connections: 3,
            load: 30,
            weight: 0,
        };
        assert_eq!(samples, [vec![expected], vec![]]);
        assert!(parse_samples(Code::Mwlc, &format!("{MARK}\nno")).is_err());
    }
}
