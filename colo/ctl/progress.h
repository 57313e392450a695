// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a transfer of a guest goes on, for whoever waits for it: one line that is redrawn on a terminal, plain lines at
// intervals otherwise, nothing with -o json.

#include "core/clock.h"
#include "schema/types.h"

#include <optional>
#include <string>

namespace colo::ctl {

// What is known of a transfer at one moment.
struct Transfer {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    double bytes_per_second = 0;
    std::int64_t pass = 0;
};

// "47 %, 1.2 GiB of 2.6 GiB, 118.0 MiB/s, pass 2, about 12.0 s left".
std::string transfer_text(const Transfer& transfer);
// The same behind a bar, not wider than `columns`.
std::string transfer_bar(const Transfer& transfer, std::size_t columns);

class ProgressView {
public:
    // Silent: nothing is ever shown.
    explicit ProgressView(bool silent);
    ~ProgressView() { clear(); }
    ProgressView(const ProgressView&) = delete;
    ProgressView& operator=(const ProgressView&) = delete;

    // Without numbers (before and after the copy) only a change of the state is worth a line, if `states` asks for it.
    void show(const schema::MigrationInfo& info, bool states);
    // Takes the line away, so that something else can be written.
    void clear();

private:
    Transfer measure(const schema::MigrationStats& ram);
    void plain(const schema::MigrationInfo& info, const std::optional<Transfer>& transfer, bool states);
    void line(const std::string& text);

    const bool silent_;
    const bool terminal_;
    bool drawn_ = false;
    std::optional<schema::MigrationStatus> status_;
    std::optional<Time> last_;        // when a plain line was written
    std::uint64_t last_percent_ = 0;  // and what it said
    std::optional<Time> measured_;    // when transferred_ was seen
    std::int64_t transferred_ = 0;
    double rate_ = 0;
};

}  // namespace colo::ctl
