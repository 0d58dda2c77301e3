"""delay_line.py MS A B: passes each packet between two interfaces of its network namespace on, so much later. Says a line
when it has begun, and ends with its standard input.

Packets keep what the kernel says of their checksums and segments (virtio_net_hdr), so that large ones go through whole."""
import collections
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23  # linux/if_packet.h
ETH_P_ALL = 3
SO_RCVBUFFORCE, BUFFER_BYTES = 33, 64 << 20
PACKET_MAX = 128 << 10


def tap(interface):
    tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # nothing comes before it is bound
    tapped.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    tapped.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    tapped.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    tapped.bind((interface, ETH_P_ALL))
    tapped.setblocking(False)
    return tapped


def main():
    delay_s = float(sys.argv[1]) / 1000
    ends = [tap(name) for name in sys.argv[2:4]]
    across = {ends[0]: ends[1], ends[1]: ends[0]}
    under_way = collections.deque()  # (when, to, packet)
    print("passes on", flush=True)
    while True:
        pause_s = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        readable = select.select([sys.stdin, *ends], [], [], pause_s)[0]
        if sys.stdin in readable:
            return
        for end in readable:
            try:
                while True:
                    packet = end.recv(PACKET_MAX)
                    under_way.append((time.monotonic() + delay_s, across[end], packet))
            except BlockingIOError:
                pass
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, packet = under_way.popleft()
            try:
                end.send(packet)
            except OSError:  # the interface is down, or its queue full: lost, as packets are
                pass


if __name__ == "__main__":
    main()
