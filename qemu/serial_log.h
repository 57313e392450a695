// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest's serial console in a file of bounded size. QEMU writes into a socket that a thread of ours reads at once,
// also when nothing can be stored: a guest that writes for ever neither fills the disk nor has to wait.

#include "core/error.h"
#include "qemu/process.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

namespace colo::qemu {

// FILE and FILE.1 together. FILE has the newest output and begins anew when it has half of that.
inline constexpr std::uint64_t kSerialLogBytes = 8u << 20;

class SerialLog {
public:
    // Takes the read end. The file begins empty and an older FILE.1 goes.
    static Result<std::unique_ptr<SerialLog>> start(Fd from, std::string file, std::uint64_t limit = kSerialLogBytes);
    ~SerialLog();  // what was written until now is stored
    SerialLog(const SerialLog&) = delete;
    SerialLog& operator=(const SerialLog&) = delete;

private:
    SerialLog(Fd from, std::string file, std::uint64_t limit);
    void run();
    bool take();
    void store(const char* text, std::size_t size);
    void open_file();

    const Fd from_;
    const std::string file_;
    const std::uint64_t half_;
    Fd out_, wake_;
    std::uint64_t size_ = 0;  // of FILE
    std::atomic<bool> closing_{false};
    std::thread thread_;
};

}  // namespace colo::qemu
