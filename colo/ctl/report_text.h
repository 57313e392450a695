// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "schema/codec.h"

#include <string>
#include <vector>

namespace colo::ctl {

// What one look at one daemon gave.
struct Look {
    std::string domain;
    std::string socket;
    Result<schema::ProtectionReport> report;
    schema::Value raw;  // the answer as it came; null if there is none
};

// Table with a header, one line a domain, reasons at the end of the line.
std::string table(const std::vector<Look>& looks, bool colour);

// Everything about one domain, several lines.
std::string details(const Look& look, bool colour);

// One line of a report, without a table around it.
std::string summary(const schema::ProtectionReport& report);

// {"schema-version": 1, "domains": [...]}
schema::Value json_status(const std::vector<Look>& looks);

// Exit status of `status`: unreachable before degraded before ok.
int exit_status(const std::vector<Look>& looks);

// "3.2 ms", "0.9 s", "14 MiB".
std::string show_us(std::uint64_t us);
std::string show_bytes(std::uint64_t bytes);

}  // namespace colo::ctl
