//! The system calls that the standard library has no safe form of. All `unsafe` code of the server is in this file.
#![expect(unsafe_code, reason = "system calls without a safe form")]

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

/// How many datagrams one call receives at most.
pub(super) const RECEIVE_BATCH: usize = 32;
/// Room for one received datagram: enough to tell that it is too long.
pub(super) const RECEIVE_BYTES: usize = 1_536;
/// How many datagrams one call sends at most.
pub(super) const SEND_BATCH: usize = 128;
/// Of how many different datagrams they are at most.
pub(super) const SEND_PARTS: usize = 32;

/// An IPv4 or IPv6 socket address as the kernel reads and writes it.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn empty() -> Self {
        // SAFETY: all-zero bytes are valid for every field of both address structures.
        unsafe { mem::zeroed() }
    }

    /// Writes an address; its length in bytes.
    fn set(&mut self, address: &SocketAddr) -> libc::socklen_t {
        let length = match address {
            SocketAddr::V4(address) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                size_of::<libc::sockaddr_in6>()
            }
        };
        length as libc::socklen_t
    }

    /// Reads the address that the kernel wrote.
    fn get(&self) -> Option<SocketAddr> {
        // SAFETY: the family is the first field of both structures, and every bit pattern is valid for their integers.
        let (v4, v6) = unsafe { (self.v4, self.v6) };
        match i32::from(v4.sin_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid header: null pointers and zero lengths.
    unsafe { mem::zeroed() }
}

/// Buffers that a batch of datagrams is received into, set aside once.
pub(super) struct ReceiveBatch {
    buffers: Box<[[u8; RECEIVE_BYTES]; RECEIVE_BATCH]>,
    names: [Name; RECEIVE_BATCH],
    lengths: [usize; RECEIVE_BATCH],
}

impl ReceiveBatch {
    pub(super) fn new() -> Self {
        Self {
            buffers: Box::new([[0; RECEIVE_BYTES]; RECEIVE_BATCH]),
            names: [Name::empty(); RECEIVE_BATCH],
            lengths: [0; RECEIVE_BATCH],
        }
    }

    /// Receives what is there, up to [`RECEIVE_BATCH`] datagrams, without waiting: how many.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RECEIVE_BATCH];
        let mut headers = [empty_header(); RECEIVE_BATCH];
        for (((part, header), buffer), name) in
            parts.iter_mut().zip(&mut headers).zip(self.buffers.iter_mut()).zip(&mut self.names)
        {
            *part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the socket is open while borrowed; each header points to a name and one part, which points to a
        // buffer of the given length. All of them outlive the call, which is the only user of the pointers.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RECEIVE_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers[..received]) {
            *length = header.msg_len as usize;
        }
        Ok(received)
    }

    /// The datagrams of the last call that returned `received`. One whose source is of no known family is left out.
    pub(super) fn datagrams(&mut self, received: usize) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let parts = self.buffers.iter_mut().zip(&self.names).zip(&self.lengths);
        parts.take(received).filter_map(|((buffer, name), length)| Some((name.get()?, &mut buffer[..*length])))
    }
}

/// What leaves in one message: so many datagrams from a place among those of a batch on, and to whom. When there are several
/// the kernel cuts them apart by the first one's length, so only the last may be shorter; and they are no more than 64, and
/// no more than 65,507 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) datagram: usize,
    pub(super) count: usize,
    pub(super) to: SocketAddr,
}

impl Outgoing {
    /// A datagram on its own.
    pub(super) const fn one(datagram: usize, to: SocketAddr) -> Self {
        Self { datagram, count: 1, to }
    }
}

/// What tells the kernel the length at which to cut, as it reads it (`cmsg(3)`).
#[derive(Clone, Copy)]
#[repr(C)]
struct Cut {
    header: libc::cmsghdr,
    segment_bytes: u16,
}

impl Cut {
    fn empty() -> Self {
        // SAFETY: all-zero bytes are valid for the integers that it is made of.
        unsafe { mem::zeroed() }
    }

    /// Writes the length; how many bytes of it the kernel is to read.
    fn set(&mut self, segment_bytes: usize) -> usize {
        let length = mem::offset_of!(Self, segment_bytes) + size_of::<u16>();
        self.header.cmsg_len = length as _;
        self.header.cmsg_level = libc::SOL_UDP;
        self.header.cmsg_type = libc::UDP_SEGMENT;
        self.segment_bytes = segment_bytes as u16;
        length
    }
}

/// Headers for a batch of datagrams to send.
pub(super) struct SendHeaders {
    names: Box<[Name; SEND_BATCH]>,
    cuts: Box<[Cut; SEND_BATCH]>,
    headers: Box<[libc::mmsghdr; SEND_BATCH]>,
}

impl SendHeaders {
    pub(super) fn new() -> Self {
        Self {
            names: Box::new([Name::empty(); SEND_BATCH]),
            cuts: Box::new([Cut::empty(); SEND_BATCH]),
            headers: Box::new([empty_header(); SEND_BATCH]),
        }
    }

    /// Sends the first [`SEND_BATCH`] messages of `outgoing` without waiting: how many were sent before one could not be,
    /// or why not even the first. Copies of one datagram share one vector.
    ///
    /// # Panics
    /// When there are more than [`SEND_PARTS`] datagrams, or `outgoing` names one that is not there.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: &[&[u8]],
        outgoing: &[Outgoing],
    ) -> io::Result<usize> {
        let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SEND_PARTS];
        let parts = &mut parts[..datagrams.len()];
        for (part, bytes) in parts.iter_mut().zip(datagrams) {
            // The kernel only reads what is sent; the structure serves both ways and so asks for a mutable pointer.
            *part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        let count = outgoing.len().min(SEND_BATCH);
        let places = self.headers.iter_mut().zip(self.names.iter_mut()).zip(self.cuts.iter_mut());
        for (((header, name), cut), outgoing) in places.zip(&outgoing[..count]) {
            let parts = &mut parts[outgoing.datagram..][..outgoing.count];
            let header = &mut header.msg_hdr;
            header.msg_namelen = name.set(&outgoing.to);
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_iovlen = parts.len() as _;
            (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
            if let [first, _, ..] = parts {
                header.msg_controllen = cut.set(first.iov_len) as _;
                header.msg_control = ptr::from_mut(cut).cast();
            }
            header.msg_iov = parts.as_mut_ptr();
        }
        // SAFETY: the socket is open while borrowed; each of the first `count` headers was pointed, just now, to a name,
        // to as many parts as it says, which point to datagrams' bytes, and to no control message or to one of the length
        // that it says. All of them outlive the call, the pointers' only user.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Whether the kernel cuts a message into datagrams ([`Outgoing`]): Linux does from 4.18 on.
pub(super) fn can_segment(socket: BorrowedFd<'_>) -> bool {
    // Nothing is cut that does not say so itself.
    let segment_bytes: libc::c_int = 0;
    // SAFETY: the option's value outlives the call and has the given length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            ptr::from_ref(&segment_bytes).cast(),
            size_of_val(&segment_bytes) as libc::socklen_t,
        )
    };
    result == 0
}

/// Waits until a socket is readable, the waker was written to, or the time is up; `None` waits for ever. True when
/// the waker was written to.
pub(super) fn wait(
    sockets: [Option<BorrowedFd<'_>>; 2],
    waker: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    // The kernel passes over negative descriptors.
    let poll = |fd: Option<BorrowedFd<'_>>| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled = [poll(sockets[0]), poll(sockets[1]), poll(Some(waker))];
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the descriptors are open while borrowed; the array and the time outlive the call.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout, ptr::null()) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
    }
    Ok(polled[2].revents != 0)
}

/// Waits until the socket takes more to send or the time is up.
pub(super) fn wait_writable(socket: BorrowedFd<'_>, timeout: Duration) {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let timeout_ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open while borrowed; the structure outlives the call. However it ends, sending is tried
    // again.
    unsafe { libc::poll(&raw mut polled, 1, timeout_ms) };
}

/// A counter that wakes whoever waits for it.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where a client's datagram names the worker that it is for.
pub(super) struct ClientOffsets {
    /// A native one: four bytes, big-endian.
    pub(super) native_id: u32,
    /// STUN: two letters.
    pub(super) stun_fragment: u32,
    /// The letter that stands for zero.
    pub(super) stun_zero: u8,
}

/// Native datagrams begin with a byte from here on (RFC 7983 leaves 192 to 255 free).
const NATIVE_FROM: u32 = 192;
/// STUN's first byte is below this.
const STUN_BELOW: u32 = 4;
/// No socket: the kernel chooses by the addresses, always the same.
const BY_ADDRESS: u32 = u32::MAX;

const fn instruction(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on after so many instructions where the comparison holds, or else after so many others.
const fn branch(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { jt, jf, ..instruction(libc::BPF_JMP | libc::BPF_K | code, k) }
}

/// Steers the datagrams of all sockets that share `socket`'s port: the byte at an offset, modulo the number of sockets, is
/// the index of the one that gets it, in the order they were bound. One too short goes to the first.
pub(super) fn steer(socket: BorrowedFd<'_>, offset: u32, sockets: u16) -> io::Result<()> {
    attach(
        socket,
        &mut [
            instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset),
            instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets.into()),
            instruction(libc::BPF_RET | libc::BPF_A, 0),
        ],
    )
}

/// Likewise by what a client's datagram is: a native one's id, or four bits of each of two letters in STUN. The rest, which
/// names no worker, goes by its addresses.
pub(super) fn steer_clients(socket: BorrowedFd<'_>, at: &ClientOffsets, sockets: u16) -> io::Result<()> {
    let load = |size: u32, offset: u32| instruction(libc::BPF_LD | size | libc::BPF_ABS, offset);
    let alu = |code: u32, k: u32| instruction(libc::BPF_ALU | code | libc::BPF_K, k);
    let by_remainder = [alu(libc::BPF_MOD, sockets.into()), instruction(libc::BPF_RET | libc::BPF_A, 0)];
    let zero = at.stun_zero.into();
    attach(
        socket,
        &mut [
            load(libc::BPF_B, 0),
            branch(libc::BPF_JGE, NATIVE_FROM, 0, 3),
            load(libc::BPF_W, at.native_id),
            by_remainder[0],
            by_remainder[1],
            branch(libc::BPF_JGE, STUN_BELOW, 8, 0),
            load(libc::BPF_B, at.stun_fragment),
            alu(libc::BPF_SUB, zero),
            alu(libc::BPF_LSH, 4),
            instruction(libc::BPF_MISC | libc::BPF_TAX, 0),
            load(libc::BPF_B, at.stun_fragment + 1),
            alu(libc::BPF_SUB, zero),
            instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
            branch(libc::BPF_JGE, sockets.into(), 0, 1),
            instruction(libc::BPF_RET | libc::BPF_K, BY_ADDRESS),
            instruction(libc::BPF_RET | libc::BPF_A, 0),
        ],
    )
}

fn attach(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel may send an IPv4 datagram that is longer than the link takes in fragments. It may unless told
/// otherwise, and then numbers every datagram, long or not, so that fragments find together (RFC 791, 3.2): from a table
/// that all sockets share, which costs 4 % of a send.
pub(super) fn allow_fragments(socket: BorrowedFd<'_>, allowed: bool) -> io::Result<()> {
    let mode: libc::c_int = if allowed { libc::IP_PMTUDISC_WANT } else { libc::IP_PMTUDISC_PROBE };
    // SAFETY: the option's value outlives the call and has the given length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            ptr::from_ref(&mode).cast(),
            size_of_val(&mode) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many datagrams the kernel dropped because the socket's receive buffer was full.
pub(super) fn receive_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// The index of the drops among the kernel's numbers (`SK_MEMINFO_DROPS`).
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the array has the given length and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(numbers[DROPS].into()) }
}

/// Sends without check sums from now on, in tests.
#[cfg(test)]
pub(super) fn send_unchecked(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value outlives the call and has the given length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the calling thread's timed waits end within a microsecond of their time instead of the usual fifty.
pub(super) fn wake_on_time() {
    const SLACK_NS: libc::c_ulong = 1_000;
    // SAFETY: no memory is passed. Refused, waits end a little later.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

/// Asks the kernel to give the calling thread the processor often and shortly. Since Linux 6.12 a thread that wakes up and
/// whose turns are shorter takes the place of one in the middle of a longer turn; otherwise it waits for the end of that,
/// some three milliseconds. Refused, or with an older kernel, all turns are as long.
pub(super) fn ask_for_short_turns() {
    /// The shortest that the kernel takes.
    const TURN_NS: u64 = 100_000;
    const SIZE: libc::c_uint = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: all-zero bytes are valid numbers.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most SIZE bytes, which are there.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    let usual = libc::SCHED_OTHER.unsigned_abs();
    if read < 0 || attributes.sched_policy != usual {
        return;
    }
    attributes.sched_runtime = TURN_NS;
    // SAFETY: the kernel reads as many bytes as `size` says, which it wrote.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if written < 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "a media worker's turns are as long as others'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel has of the calling thread.
    fn attributes() -> libc::sched_attr {
        // SAFETY: all-zero bytes are valid numbers.
        let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
        let size = size_of::<libc::sched_attr>() as libc::c_uint;
        // SAFETY: the kernel writes at most `size` bytes, which are there.
        let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        assert_eq!(read, 0, "{}", io::Error::last_os_error());
        attributes
    }

    fn kernel_knows_turns() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
        let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
    }

    #[test]
    fn a_thread_gets_short_turns_and_keeps_the_rest() {
        let before = attributes();
        let after = std::thread::spawn(|| {
            ask_for_short_turns();
            attributes()
        });
        let after = after.join().expect("ended");
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        if kernel_knows_turns() {
            assert_eq!(after.sched_runtime, 100_000);
        }
        assert_eq!(attributes().sched_runtime, before.sched_runtime, "of that thread alone");
    }
}
