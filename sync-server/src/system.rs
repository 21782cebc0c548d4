//! What is asked of the operating system: more than its defaults, which were made for programs that serve few.

use std::{io, net::SocketAddr};

use rustix::{
    net::sockopt::set_socket_recv_buffer_size,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Bytes of datagrams that wait to be read: some 1,700 first flights, while others have the processor. What does
/// not fit is lost, and the honest lose with the others. A system that allows less (`net.core.rmem_max`) gives
/// what it allows.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Raises the number of files and sockets that this process may open as far as it may itself, and says how many
/// that is; `None` for as many as it wants.
///
/// The usual limit, 1,024, is kept low for the sake of old programs alone; those that know no bound of their own
/// are expected to raise it.
pub fn raise_descriptors() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, it stays as it was, and fewer connections are taken.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

/// A UDP socket with room for a crowd.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    // Some systems refuse what is too much, others cut it down.
    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_descriptors_as_are_allowed() {
        let allowed = getrlimit(Resource::Nofile).maximum;
        let raised = raise_descriptors();
        assert!(
            raised == allowed || raised.is_some_and(|raised| raised > 1_024),
            "{raised:?} of {allowed:?}"
        );
    }
}
