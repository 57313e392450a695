// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/advice.h"

namespace colo::ctl {
namespace {

struct Known {
    std::string_view part;    // of the refusal
    std::string_view advice;  // DOMAIN stands for the domain
};

constexpr Known kKnown[] = {
    {"There's a migration process in progress", "follow it with 'coloctl migrate DOMAIN', end it with '--cancel'"},
    {"Guest is waiting for an incoming migration", "this is the destination: ask the other side"},
    {"paused due to previous migration", "'coloctl qmp DOMAIN cont' lets it run here again"},
    {"expects a valid migration protocol", "write it as tcp:HOST:PORT or unix:PATH"},
    {"Connection refused", "nobody listens there: has the other daemon been told to wait?"},
    {"No such file or directory", "is it the right path, and is somebody listening?"},
    {"'capability' does not accept value", "'coloctl capabilities DOMAIN' lists those that there are"},
    {"Job not found", "'coloctl jobs DOMAIN' lists those that there are"},
    {"cannot accept command verb", "'coloctl jobs DOMAIN' shows in which state it is"},
    {"Can't resume a job that was not paused", "'coloctl jobs DOMAIN' shows in which state it is"},
    {"has not been found", "'coloctl qmp DOMAIN query-commands' lists those that there are"},
};

}  // namespace

std::string advice(std::string_view refusal, const std::string& domain)
{
    for (const Known& known : kKnown) {
        if (refusal.find(known.part) == refusal.npos) continue;
        std::string text(known.advice);
        if (const std::size_t at = text.find("DOMAIN"); at != text.npos)
            text.replace(at, 6, domain.empty() ? "--socket SOCKET" : domain);
        return " (" + text + ")";
    }
    return {};
}

std::string advice_unreachable(std::string_view why)
{
    if (why.find("No such file or directory") != why.npos || why.find("Connection refused") != why.npos)
        return " (is its colod running? 'coloctl status' lists the daemons of this host)";
    if (why.find("Permission denied") != why.npos) return " (the socket belongs to colod's user and group)";
    return {};
}

}  // namespace colo::ctl
