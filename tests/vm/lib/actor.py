# SPDX-License-Identifier: GPL-2.0-only
"""A tiny guest that does, once, what the test writes into its memory, and otherwise spins."""

import struct

from . import host

# In real mode, with ES at the local APIC.
START, HANDLER = 0x400, 0x700
COMMAND, A, B, INTERRUPTS = 0x800, 0x804, 0x808, 0x80C
HYPERCALL, OUT, IPI, TIMER, HLT, HYPERCALLS, STORM, STARTING = range(1, 9)
PORT = 0x510
VECTOR = 0x42
MANY = 3000

CODE = bytes.fromhex("".join(line.split("#")[0] for line in """
    2666c706f000ff010000   # 400: movl $0x1ff, %es:0xf0      the local APIC is on
    2666c706e0030b000000   # 40a: movl $0xb, %es:0x3e0       its timer counts nanoseconds,
    2666c706200340000000   # 414: movl $0x40, %es:0x320      once, and raises vector 0x40
    fb c606000800          # 41e: sti; movb $0, COMMAND      up, see Actor.up()
    8a160008               # 424: mov COMMAND, %dl
    66a10408 668b1e0808    # 428: mov A, %eax; mov B, %ebx
    80fa00 7511            # 431: cmp $0, %dl; jne 447
    66b900000800           # 436: mov $0x80000, %ecx
    6649 75fc              # 43c: dec %ecx; jne 43c
    6631c0 0fa2            # 440: xor %eax, %eax; cpuid      see SPIN in kvm.py
    ebdd                   # 445: jmp 424
    c606000800             # 447: movb $0, COMMAND           taken
    80fa01 7505            # 44c: cmp $HYPERCALL, %dl; jne 456
    0f01d9 ebce            # 451: vmmcall; jmp 424
    80fa02 7506            # 456: cmp $OUT, %dl; jne 461
    ba1005 ee ebc3         # 45b: mov $PORT, %dx; out %al, (%dx); jmp 424
    80fa03 7516            # 461: cmp $IPI, %dl; jne 47c
    2666c706100300000001   # 466: movl $0x1000000, %es:0x310 to vCPU 1
    2666c706000341400000   # 470: movl $0x4041, %es:0x300    vector 0x41
    eba8                   # 47a: jmp 424
    80fa04 7507            # 47c: cmp $TIMER, %dl; jne 488
    2666a38003 eb9c        # 481: mov %eax, %es:0x380; jmp 424
    80fa05 7503 f4 eb94    # 488: cmp $HLT, %dl; jne 490; hlt; jmp 424
    80fa06 7516            # 490: cmp $HYPERCALLS, %dl; jne 4ab
    66b9b80b0000           # 495: mov $MANY, %ecx
    6689c6                 # 49b: mov %eax, %esi
    6689f0 0f01d9          # 49e: mov %esi, %eax; vmmcall
    6649 75f6              # 4a4: dec %ecx; jne 49e
    e979ff                 # 4a8: jmp 424
    80fa07 0f8572ff        # 4ab: cmp $STORM, %dl; jne 424
    fa                     # 4b2: cli
    2666c706000341000400   # 4b3: movl $0x40041, %es:0x300   an interrupt to itself, before it halts
    fb f4 ebf1             # 4bd: sti; hlt; jmp 4b2
""".strip().splitlines()))

# incw INTERRUPTS; movl $0, %es:0xb0 (end of interrupt); iret
ON_INTERRUPT = bytes.fromhex("ff060c08 2666c706b00000000000 cf")


def page():
    """The guest's memory."""
    memory = bytearray(4096)
    for vector in range(256):
        struct.pack_into("HH", memory, 4 * vector, HANDLER, 0)
    memory[START:START + len(CODE)] = CODE
    memory[HANDLER:HANDLER + len(ON_INTERRUPT)] = ON_INTERRUPT
    memory[COMMAND] = STARTING
    return bytes(memory)


class Actor:
    """Such a guest, in a VMM of kvm.py, made with `irqchip` and the code "actor"."""

    def __init__(self, vmm, kvm_fd):
        self.vmm, self.kvm_fd = vmm, kvm_fd

    def up(self):
        """Waits until it takes interrupts and commands: it has taken the last command."""
        try:
            host.wait(self.ready, "the guest has taken its command", 20, step=0.001)
        except AssertionError:
            self.vmm.disobeys()
            raise

    def ready(self):
        return self.vmm.peek(self.kvm_fd, COMMAND, 1) == "00"

    def do(self, command, a=0, b=0):
        self.up()
        self.tell(command, a, b)

    def tell(self, command, a=0, b=0):
        """The same, to one that is known to be ready."""
        self.vmm.poke(self.kvm_fd, A, struct.pack("II", a, b).hex())
        self.vmm.poke(self.kvm_fd, COMMAND, bytes([command]).hex())

    def hypercall(self, number, argument=0, many=False):
        self.do(HYPERCALLS if many else HYPERCALL, number, argument)

    def interrupts(self):
        """How many the guest has got."""
        return struct.unpack("H", bytes.fromhex(self.vmm.peek(self.kvm_fd, INTERRUPTS, 2)))[0]
