// A TCG plugin for qemu-user (plugin API version 1, qemu 7.2): counts the instructions
// of the guest by class and prints the counters at its exit, and at every system call
// getpgid(0x4d410000 + tag) of the guest. One guest thread only: the counters are not
// atomic. guest_instructions.py compiles and uses it.
#include <stdint.h>
#include <stdio.h>
#include <stdbool.h>
#include <string.h>
#include <stddef.h>
typedef uint64_t qemu_plugin_id_t;
typedef struct { const char *target_name; struct { int min, cur; } version; bool system_emulation;
  union { struct { int smp_vcpus, max_vcpus; } system; }; } qemu_info_t;
struct qemu_plugin_tb; struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*udata_cb)(qemu_plugin_id_t, void *);
typedef void (*sys_cb)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_cb, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, sys_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { TOTAL, SIMD_LD, SIMD_ST, OTHER_LDST, SIMD_ALU, SDOT, WIDEMUL, BRANCH, OTHER, NC };
static const char *names[NC] = { "total","simd_ld","simd_st","int_ldst","simd_alu_other","sdot_udot","smull/smlal","branch","int_alu_other" };
static uint64_t c[NC];
static uint64_t last[NC];

static int classify(uint32_t w) {
  uint32_t op0 = (w >> 25) & 0xf;
  if ((op0 & 0x5) == 0x4) {           // x1x0 loads/stores
    if (!((w >> 26) & 1)) return OTHER_LDST;
    bool ld;
    if ((w & 0x3b000000) == 0x18000000) ld = true;                 // LDR literal
    else if ((w & 0x3a000000) == 0x28000000) ld = (w >> 22) & 1;   // LDP/STP
    else if ((w & 0xbe000000) == 0x0c000000) ld = (w >> 22) & 1;   // LD1.. / ST1..
    else ld = (w >> 22) & 1;                                       // LDR/STR: opc<0>
    return ld ? SIMD_LD : SIMD_ST;
  }
  if ((op0 & 0x7) == 0x7) {           // x111 SIMD & FP
    if ((w & 0x9f20fc00) == 0x0e009400 || (w & 0x9f00f400) == 0x0f00e000) {
      if (((w >> 22) & 3) == 2) return SDOT;
    }
    if ((w & 0x9f200c00) == 0x0e200000) {  // three different
      uint32_t opc = (w >> 12) & 0xf;
      if (opc == 8 || opc == 0xa || opc == 0xc) return WIDEMUL;
    }
    return SIMD_ALU;
  }
  if ((op0 & 0xe) == 0xa) return BRANCH;
  return OTHER;
}
static void tb(qemu_plugin_id_t id, struct qemu_plugin_tb *t) {
  size_t n = qemu_plugin_tb_n_insns(t); uint64_t k[NC] = {0};
  for (size_t i = 0; i < n; i++) {
    uint32_t w; memcpy(&w, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(t, i)), 4);
    k[classify(w)]++; k[TOTAL]++;
  }
  for (int i = 0; i < NC; i++) if (k[i])
    qemu_plugin_register_vcpu_tb_exec_inline(t, QEMU_PLUGIN_INLINE_ADD_U64, &c[i], k[i]);
}
static void dump(const char *what, long tag) {
  fprintf(stderr, "[insn] %s %ld", what, tag);
  for (int i = 0; i < NC; i++) { fprintf(stderr, " %s=%llu(+%llu)", names[i], (unsigned long long)c[i], (unsigned long long)(c[i]-last[i])); last[i] = c[i]; }
  fputc('\n', stderr);
}
static void fin(qemu_plugin_id_t id, void *p) { dump("exit", 0); }
static void sysc(qemu_plugin_id_t id, unsigned v, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if (num == 155 && (a1 & 0xffff0000u) == 0x4d410000u) dump("mark", (long)(a1 & 0xffff)); // aarch64 __NR_getpgid
}
__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, tb);
  qemu_plugin_register_vcpu_syscall_cb(id, sysc);
  qemu_plugin_register_atexit_cb(id, fin, NULL);
  return 0;
}
