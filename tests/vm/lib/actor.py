# SPDX-License-Identifier: GPL-2.0-only
"""A tiny guest that does, once, what the test writes into its memory, and otherwise spins."""

import struct

# In real mode, with ES at the local APIC.
START, HANDLER = 0x400, 0x700
COMMAND, A, B, INTERRUPTS = 0x800, 0x804, 0x808, 0x80C
HYPERCALL, OUT, IPI, TIMER, HLT, HYPERCALLS, STORM = range(1, 8)
PORT = 0x510
VECTOR = 0x42
MANY = 3000

CODE = bytes.fromhex("".join(line.split("#")[0] for line in """
    2666c706f000ff010000   # 400: movl $0x1ff, %es:0xf0      the local APIC is on
    2666c706e0030b000000   # 40a: movl $0xb, %es:0x3e0       its timer counts nanoseconds,
    2666c706200340000000   # 414: movl $0x40, %es:0x320      once, and raises vector 0x40
    fb                     # 41e: sti
    30c0                   # 41f: xor %al, %al
    86060008               # 421: xchg %al, COMMAND
    3c00 7511              # 425: cmp $0, %al; jne 43a
    66b900000800           # 429: mov $0x80000, %ecx
    6649 75fc              # 42f: dec %ecx; jne 42f
    6631c0 0fa2            # 433: xor %eax, %eax; cpuid      see SPIN in kvm.py
    ebe5                   # 438: jmp 41f
    3c01 750e              # 43a: cmp $HYPERCALL, %al; jne 44c
    66a10408 668b1e0808    # 43e: mov A, %eax; mov B, %ebx
    0f01d9 ebd3            # 447: vmmcall; jmp 41f
    3c02 7506              # 44c: cmp $OUT, %al; jne 456
    ba1005 ee ebc9         # 450: mov $PORT, %dx; out %al, (%dx); jmp 41f
    3c03 7516              # 456: cmp $IPI, %al; jne 470
    2666c706100300000001   # 45a: movl $0x1000000, %es:0x310 to vCPU 1
    2666c706000341400000   # 464: movl $0x4041, %es:0x300    vector 0x41
    ebaf                   # 46e: jmp 41f
    3c04 750b              # 470: cmp $TIMER, %al; jne 47f
    66a10408 2666a38003    # 474: mov A, %eax; mov %eax, %es:0x380
    eba0                   # 47d: jmp 41f
    3c05 7503 f4 eb99      # 47f: cmp $HLT, %al; jne 486; hlt; jmp 41f
    3c06 7519              # 486: cmp $HYPERCALLS, %al; jne 4a3
    668b1e0808             # 48a: mov B, %ebx
    66b9b80b0000           # 48f: mov $MANY, %ecx
    66a10408 0f01d9        # 495: mov A, %eax; vmmcall
    6649 75f5              # 49c: dec %ecx; jne 495
    e97cff                 # 4a0: jmp 41f
    3c07 0f8576ff          # 4a3: cmp $STORM, %al; jne 41f
    fa                     # 4a9: cli
    2666c706000341000400   # 4aa: movl $0x40041, %es:0x300   an interrupt to itself, before it halts
    fb f4 ebf1             # 4b4: sti; hlt; jmp 4a9
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
    return bytes(memory)


class Actor:
    """Such a guest, in a VMM of kvm.py, made with `irqchip` and the code "actor"."""

    def __init__(self, vmm, kvm_fd):
        self.vmm, self.kvm_fd = vmm, kvm_fd

    def do(self, command, a=0, b=0):
        self.vmm.poke(self.kvm_fd, A, struct.pack("II", a, b).hex())
        self.vmm.poke(self.kvm_fd, COMMAND, bytes([command]).hex())

    def hypercall(self, number, argument=0, many=False):
        self.do(HYPERCALLS if many else HYPERCALL, number, argument)

    def interrupts(self):
        """How many the guest has got."""
        return struct.unpack("H", bytes.fromhex(self.vmm.peek(self.kvm_fd, INTERRUPTS, 2)))[0]
