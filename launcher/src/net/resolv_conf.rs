//! The name servers of this machine, as `resolv.conf` has them. The supervisor reads the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port of DNS.
const PORT: u16 = 53;
/// Name servers asked; `MAXNS` of glibc.
const SERVERS_MAX: usize = 3;

/// Returns the name servers that the text of a `resolv.conf` names, as glibc reads it: the first three, and this host's
/// own where there is none.
///
/// Scope ids are left out; a server that needs one cannot be reached.
pub(crate) fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<_> = resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.trim_start_matches([' ', '\t']).split([' ', '\t', ';', '#', '\r']).next())
        .filter_map(|address| address.split('%').next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        name_servers(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_are_read_as_glibc_does() {
        assert_eq!(
            servers(
                "# by hand\nsearch example.org\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # second\noptions edns0\n"
            ),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
        assert_eq!(servers("nameserver fe80::1%eth0\r\n"), ["[fe80::1]:53"]);
        assert_eq!(
            servers(
                "nameserver 192.0.2.1;\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4"
            ),
            ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"]
        );
    }

    #[test]
    fn lines_that_name_no_server_do_not_count() {
        let text = "nameservers 192.0.2.1\n nameserver 192.0.2.2\n#nameserver 192.0.2.3\nnameserver x.example\n\
                    nameserver\nnameserver  192.0.2.5";
        assert_eq!(servers(text), ["192.0.2.5:53"]);
    }

    #[test]
    fn without_a_server_this_host_is_asked() {
        assert_eq!(servers(""), ["127.0.0.1:53"]);
        assert_eq!(servers("search example.org\nnameserver nonsense\n"), ["127.0.0.1:53"]);
    }
}
