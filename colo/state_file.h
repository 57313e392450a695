// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a daemon must still know after a crash or a power loss: who it was, which generation, whether it may run
// (PersistentState in colo/node.h). One state directory belongs to one domain on one host and to one daemon at a time.
//
// Files: `state` (current; text with a CRC-32C as its last line), `host-id` (made once; identifies this host to the
// arbiter), `lock` (flock). store() is atomic: temporary file, fsync, rename, fsync of the directory. After a crash at
// any point the directory holds either the old or the new state, whole.
//
// Threads: calls block on the file system and must come from one thread at a time, not from the control thread.

#include "colo/node.h"
#include "core/error.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace colo {

class StateDirectory {
public:
    // Makes the directory (0700) where missing and takes its lock. Errc::refused: another daemon has it.
    static Result<std::unique_ptr<StateDirectory>> open(const std::string& path, const std::string& domain_uuid);
    ~StateDirectory();
    StateDirectory(const StateDirectory&) = delete;
    StateDirectory& operator=(const StateDirectory&) = delete;

    // 32 hexadecimal digits, random, the same for ever in this directory.
    const std::string& host_id() const { return host_id_; }
    const std::string& path() const { return path_; }

    // Nothing stored yet: a PersistentState of this domain with role none. Errc::corrupt, Errc::unsupported (format of
    // a newer version) and Errc::refused (state of another domain) say what the operator can do; nothing is guessed.
    Result<PersistentState> load() const;

    // On success the state is on stable storage. On failure the old or the new state is there: store again or stop.
    // A generation that falls is Errc::invalid: it would let two sides hold the same one.
    Result<void> store(const PersistentState& state);

private:
    StateDirectory(std::string path, std::string domain_uuid, int directory_fd, int lock_fd);
    Result<void> prepare();

    std::string path_, domain_uuid_, host_id_;
    int directory_fd_ = -1, lock_fd_ = -1;
    std::optional<Generation> newest_;
};

// The text form, for tests and for `coloctl`-like inspection.
std::string encode_state(const PersistentState& state);
Result<PersistentState> decode_state(std::string_view text);

}  // namespace colo
