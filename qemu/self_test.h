// SPDX-License-Identifier: Apache-2.0
#pragma once

// Questions about this host and this QEMU that only a trial answers. Each runs a throw-away QEMU, under a deadline; the
// answer is kept in <run directory>/self-test.cache under a key that names everything it depends on, unless it is that
// the time ran out.

#include "core/error.h"
#include "qemu/options.h"

#include <string>

namespace colo::qemu {

struct Verdict {
    bool works = false;
    std::string why_not;
    bool timed_out = false;  // says as much about how busy the host was, so it is not kept
};

// Does KVM really run the configured kernel? Boots it until the serial console shows life. (A /dev/kvm can exist, accept a
// machine and yet run an ordinary kernel at a crawl or die in its instruction emulator.)
Result<Verdict> test_kvm(const EmbeddedGuestOptions& options);

// Does QEMU survive xen-load-devices-state, twice? A build without Xen of 7.2 aborts in it.
Result<Verdict> test_xen_load(const EmbeddedGuestOptions& options, Deadline deadline);

struct Choice {
    std::string value;   // "tcg" or "kvm"; "snapshot" or "xen-load"
    std::string why;     // why not the preferred one; empty if it is
};
// Applies the configured preference; a forced value that does not work is refused with the reason.
Result<Choice> choose_accelerator(const EmbeddedGuestOptions& options);
Result<Choice> choose_device_load(const EmbeddedGuestOptions& options, Deadline deadline);

namespace detail {
// What the answer of test_kvm() depends on, apart from the content that is booted (`boot_digest`).
struct KvmKey {
    std::string binary;   // path, size and time
    std::string version;  // of QEMU, as it says itself
    std::string boot_id;  // another kernel or another set of modules may answer differently
};
std::string kvm_cache_key(const EmbeddedGuestOptions& options, const KvmKey& key, const std::string& boot_digest);

// One line per answer: "key<TAB>works|broken<TAB>why". A damaged file counts as empty.
class VerdictCache {
public:
    explicit VerdictCache(std::string file) : file_(std::move(file)) {}
    bool find(const std::string& key, Verdict& verdict) const;
    void store(const std::string& key, const Verdict& verdict) const;  // nothing if it timed out

private:
    std::string file_;
};
}  // namespace detail

}  // namespace colo::qemu
