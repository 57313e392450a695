// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/failure.h"

#include "colo/ctl/advice.h"

#include <cstdio>

namespace colo::ctl {
namespace {

void print(std::string_view what, const Error& error)
{
    std::fprintf(stderr, "coloctl: %.*s: %s\n", static_cast<int>(what.size()), what.data(), error.text.c_str());
}

}  // namespace

int report_failure(std::string_view what, const Error& error)
{
    print(what, error);
    return error.code == Errc::timed_out || error.code == Errc::closed ? kUnreachable : kError;
}

int report_failure(std::string_view what, const Error& error, const std::string& domain)
{
    return report_failure(what, Error{error.code, error.text + advice(error.text, domain)});
}

int report_unreachable(std::string_view what, const Error& error)
{
    print(what, error);
    return kUnreachable;
}

}  // namespace colo::ctl
